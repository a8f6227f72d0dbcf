"""Attacks on trained networks and corruptions of what they see.

What is found is judged in `analysis`.
"""
