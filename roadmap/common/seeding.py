"""The generators that a training step may draw from."""

import random

import numpy as np


def seed_step(*numbers: int) -> None:
    """Set every generator that a training step may draw from: Python's, NumPy's, torch's on the CPU and in-use GPUs.

    `torch.manual_seed` sets them to the same, but where CUDA is not in use it notes a stack trace for the day that it
    is, which at a step an image took longer than drawing.
    """
    import torch

    state = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    random.seed(int(state[0]))
    np.random.seed(int(state[0]))
    seed = int(state[0]) << 32 | int(state[1])
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # not so in decoding workers, which may not touch it
        torch.cuda.manual_seed_all(seed)
