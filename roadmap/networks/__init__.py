"""Networks: their configurations, and what builds, scales, counts and converts them; timm's behind the same interface.

No steps, no training, no processes: a network is described here, not the path that led to it.
"""
