"""Rungs as backbones of detectors and segmenters: what these cost, and training and testing them on other tasks.

Their images are in `data`. What is found is judged in `analysis`; how a classifier is trained is not known here.
"""
