"""Inference speed of Tables 3 and 4's detectors and segmenters on the device at hand, all of them in turns.

A model is built anew for its visit, so that one at a time takes memory. Weights are random, the image is noise, and
images come one by one, as where the paper counts frames per second. A detector does all that it does at test: it
chooses among its boxes and puts masks into the image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from roadmap.common.errors import UserError
from roadmap.common.machine import choose_device, count_cores
from roadmap.common.provenance import gpu, processor
from roadmap.downstream.counts import PROPOSALS, build_as_printed
from roadmap.downstream.tables import Row
from roadmap.downstream.task_recipe import LABELS, Framework
from roadmap.downstream.upernet import UPerNet
from roadmap.measuring.turns import Show, cpu_threads, show_nothing, take_turns, work_per_s

ROUNDS = 5
VISIT_S = 2.0  # and at least one image
LARGEST_ON_CPU = 300  # 1e9 multiply-adds: what takes longer is measured on CPUs only if it is asked for
TF32_SINCE = 8  # of CUDA's compute capability: an A100's
BELOW = 1 - 1e-5  # scores that are just as high pass too

Shape = tuple[Framework, str, tuple[int, int]]  # what stands on the backbone, the backbone, size of the image


class Visit(NamedTuple):
    """What one visit found.

    Attributes:
        images_per_s: Images a second.
        boxes: Boxes with masks that a detector found in the image; None of a segmenter.
    """

    images_per_s: float
    boxes: int | None


class Speeds(NamedTuple):
    """What was measured, and on what.

    Attributes:
        visits: Of each model at its image size, one a round.
        device: The GPU's or processor's name.
        threads: CPU threads.
        precision: That of convolutions and matrix products.
    """

    visits: dict[Shape, list[Visit]]
    device: str
    threads: int
    precision: str


def worth_measuring(rows: Sequence[Row], *, asked_for: bool, device: str | None = None) -> list[Row]:
    """Return the rows to measure: on a CPU, where it takes long, the smaller ones, unless others are asked for."""
    if asked_for or (device or choose_device()) != "cpu":
        return list(rows)
    return [row for row in rows if row.gmacs <= LARGEST_ON_CPU]


def shape_of(row: Row) -> Shape:
    """Return what a row's speed depends on: rows that differ in their training alone share it."""
    return row.framework, row.backbone, row.size


def measure_speeds(
    rows: Sequence[Row],
    *,
    rounds: int = ROUNDS,
    visit_s: float = VISIT_S,
    device: str | None = None,
    show: Show = show_nothing,
) -> Speeds:
    """Measure images per second of inference: one image at a time, channels_last, TF32 where the GPU has it.

    Args:
        rows: Those of one model and image size are measured once.
        rounds: How often each is visited.
        visit_s: About how long it infers in a visit; never less than one image.
        device: "cpu" or "cuda"; None takes a GPU where there is one.
        show: Called before each visit with the number done, that of all, and what is at hand.

    Raises:
        UserError: If the device's memory does not do.

    Source: Appendix E of the paper, whose throughputs on an A100 are those of TF32 and channels_last. Of the frames per
        second in Table 3 it says no more than that they are an A100's.
    """
    device = choose_device(device)
    threads = count_cores()
    shapes = {shape_of(row): row for row in rows}
    visits = {shape: partial(_visit, row, device, visit_s) for shape, row in shapes.items()}
    with cpu_threads(threads), _tf32():
        found = take_turns(visits, rounds, label=_label, show=show)
    has_tf32 = device == "cuda" and torch.cuda.get_device_capability()[0] >= TF32_SINCE
    name = (gpu() if device == "cuda" else None) or processor()
    return Speeds(found, name, threads, "TF32" if has_tf32 else "float32")


@contextmanager
def _tf32() -> Iterator[None]:
    """Let a GPU's float32 be TF32 meanwhile; a CPU's stays what it is."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def _label(shape: Shape) -> str:
    framework, backbone, size = shape
    return f"{LABELS[framework]}, {backbone} at {size[0]}x{size[1]}"


def _visit(row: Row, device: str, visit_s: float) -> Visit:
    try:
        return _speed(row, device, visit_s)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the {device} device has no memory for {_label(shape_of(row))}. Measure others (--only)."
        ) from error


@torch.inference_mode()
def _speed(row: Row, device: str, visit_s: float) -> Visit:
    """Return what one visit of a row's model finds."""
    with torch.device(device):
        model = build_as_printed(row.framework, row.net, row.size).eval().to(memory_format=torch.channels_last)
        image = torch.randn(3, *row.size)
    if isinstance(model, UPerNet):
        images = image[None].contiguous(memory_format=torch.channels_last)
        return Visit(work_per_s(lambda: model(images).argmax(1), device, visit_s), None)
    boxes = _let_boxes_pass(model, image)
    return Visit(work_per_s(lambda: model([image]), device, visit_s), boxes)


def _let_boxes_pass(detector: MaskRCNN, image: Tensor) -> int:
    """Set the score from which a detector takes boxes such that it has work to do; return how many it then finds.

    Without training, all scores are about one by the number of classes, and no box would pass. As many do now as there
    are proposals, of any class; what is left when others cover them gets masks, at most 100.
    """
    last = list(getattr(detector.roi_heads, "stages", [detector.roi_heads]))[-1]
    decide = last.postprocess_detections

    def look(logits: Tensor, *others: Any) -> Any:
        scores = logits.softmax(-1)[:, 1:].flatten()
        last.score_thresh = BELOW * scores.topk(min(PROPOSALS, len(scores))).values[-1].item()
        return decide(logits, *others)

    last.postprocess_detections = look
    [found] = detector([image])
    del last.postprocess_detections  # on the object, in front of its class's
    return len(found["boxes"])
