"""Trained weights for other programs: safetensors with their configuration, and the ladder's networks in timm.

Converting between naming schemes is in `roadmap.networks.convert`.
"""
