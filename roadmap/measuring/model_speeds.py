"""Inference speed of Table 1's models on the device at hand, all of them in turns.

A model is built anew for its visit, so that one at a time takes memory. Images are noise.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from roadmap.common.errors import UserError
from roadmap.common.machine import choose_device, count_cores
from roadmap.common.provenance import gpu, processor
from roadmap.ladder.table1 import Model
from roadmap.measuring.turns import Show, cpu_threads, show_nothing, take_turns, work_per_s
from roadmap.networks.model import build_model

ROUNDS = 5
VISIT_S = 1.0  # and at least one batch
LARGEST_ON_CPU = 20.0  # 1e9 multiply-adds: what takes longer is measured on CPUs only if it is asked for
BATCH_ON_CPU, BATCH_ON_GPU = 4, 64

Shape = tuple[str, int]  # a network's name in timm, image size


class Speeds(NamedTuple):
    """What was measured, and on what.

    Attributes:
        images_per_s: Of each network at its image size, one number a round.
        device: The GPU's or processor's name.
        threads: CPU threads.
        batch_size: Images in a batch.
    """

    images_per_s: dict[Shape, list[float]]
    device: str
    threads: int
    batch_size: int


def worth_measuring(models: Sequence[Model], *, asked_for: bool, device: str | None = None) -> list[Model]:
    """Return the models to measure: on a CPU, where it takes long, the smaller ones, unless others are asked for."""
    if asked_for or (device or choose_device()) != "cpu":
        return list(models)
    return [model for model in models if model.gmacs <= LARGEST_ON_CPU]


def measure_speeds(
    models: Sequence[Model],
    *,
    rounds: int = ROUNDS,
    visit_s: float = VISIT_S,
    batch_size: int | None = None,
    device: str | None = None,
    show: Show = show_nothing,
) -> Speeds:
    """Measure images per second of inference: float32, channels_last, untrained weights.

    Args:
        models: Those of one network and image size are measured once.
        rounds: How often each network is visited.
        visit_s: About how long it infers in a visit; never less than one batch.
        batch_size: None takes one for the device.
        device: "cpu" or "cuda"; None takes a GPU where there is one.
        show: Called before each visit with the number done, that of all, and what is at hand.

    Raises:
        UserError: If the device's memory does not do.
    """
    device = choose_device(device)
    batch_size = batch_size or (BATCH_ON_CPU if device == "cpu" else BATCH_ON_GPU)
    threads = count_cores()
    shapes = {(model.timm, model.image_size): model for model in models}
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    visits = {shape: partial(_visit, model, batch_size, device, visit_s) for shape, model in shapes.items()}
    with cpu_threads(threads):
        found = take_turns(visits, rounds, label=lambda shape: _label(shapes[shape]), show=show)
    return Speeds(found, (gpu() if device == "cuda" else None) or processor(), threads, batch_size)


def _label(model: Model) -> str:
    return f"{model.label} at {model.image_size}"


def _visit(model: Model, batch_size: int, device: str, visit_s: float) -> float:
    try:
        return _speed(model, batch_size, device, visit_s)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the {device} device has no memory for {_label(model)} and batches of {batch_size} images. Measure "
            "others (--only)."
        ) from error


@torch.inference_mode()
def _speed(model: Model, batch_size: int, device: str, visit_s: float) -> float:
    """Return the images per second of one model's visit."""
    with torch.device(device):
        network = build_model(model.net).eval().to(memory_format=torch.channels_last)
        images = torch.randn(batch_size, 3, model.image_size, model.image_size)
    images = images.to(memory_format=torch.channels_last)
    return batch_size * work_per_s(lambda: network(images), device, visit_s)
