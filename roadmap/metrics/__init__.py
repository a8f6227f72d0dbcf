"""Measuring trained networks: with functions of a user's own, and as work for jobs.

What a metric is, and what run folders hold of it, stands in `roadmap.runs`; what it says of a step in `analysis`.
"""
