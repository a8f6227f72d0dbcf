"""Data sets: what they are, how they are read, augmented and made into batches; the embedded part of Fashion-MNIST.

Nothing here knows of networks or optimizers.
"""
