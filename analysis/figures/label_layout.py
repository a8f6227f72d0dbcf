"""Where texts go beside marks: near their own, clear of others, of lines and of each other."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from analysis.figures.style import width_of

Floats = NDArray[np.float64]

REACHES = (0.0, 0.05, 0.1, 0.16, 0.24, 0.34, 0.46, 0.6)  # inches from a mark's edge
ANGLES = np.radians([0, 90, 180, 270, 45, 135, 225, 315, *range(15, 360, 30)])
GAP, PASSES = 0.02, 4
# What a square inch of overlap counts with a text, a mark, a line, the panel's outside; what an inch of distance does.
TEXT, MARK, LINE, OUTSIDE, FAR = 60.0, 6.0, 0.7, 60.0, 0.03
DASH = 0.025  # inches of a line that are looked at as a box


def place_texts(
    marks: Floats,
    texts: Sequence[str],
    size: tuple[float, float],
    *,
    font: float,
    diameters: Floats,
    lines: Sequence[Floats] = (),
) -> Floats:
    """Return a middle for each text, shape (marks, 2): each has the best place beside the others', a few times over.

    Args:
        marks: Where the marks are, inches from the panel's lower left, shape (marks, 2).
        texts: What stands beside them.
        size: Width and height of the panel in inches.
        font: Of the texts, in points.
        diameters: Of the marks, inches, shape (marks,). A text that fits into its mark may stand there.
        lines: Lines to keep clear of, each of shape (points, 2); a point that is not finite breaks one.
    """
    if not len(texts):
        return np.zeros((0, 2))
    boxes = np.array([(width_of(text, font) + 0.02, 1.15 * font / 72) for text in texts])
    dots = np.column_stack([marks, diameters, diameters])
    dashes = np.concatenate([_dashes(line) for line in lines]) if lines else np.zeros((0, 4))
    tries, costs = [], []
    for i, (mark, box) in enumerate(zip(marks, boxes, strict=True)):
        at, away = _tries(mark, box, diameters[i])
        tried = np.column_stack([at, np.broadcast_to(box, at.shape)])
        others = np.delete(dots, i, axis=0)
        cost = MARK * _overlaps(tried, others) + LINE * _overlaps(tried, dashes) + OUTSIDE * _outside(tried, size)
        tries.append(tried)
        costs.append(cost + FAR * away)
    chosen = np.array([tried[np.argmin(cost)] for tried, cost in zip(tries, costs, strict=True)])
    for _ in range(PASSES):
        for i in range(len(texts)):
            cost = costs[i] + TEXT * _overlaps(tries[i], np.delete(chosen, i, axis=0))
            chosen[i] = tries[i][np.argmin(np.round(cost, 9))]  # not to choose by rounding errors
    return np.asarray(chosen[:, :2])


def _tries(mark: Floats, box: Floats, diameter: float) -> tuple[Floats, Floats]:
    """Return places around a mark, shape (places, 2), and how far each is from its edge."""
    directions = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
    aways = np.array(REACHES)[:, None, None]
    at = (mark + directions * (aways + (diameter + GAP) / 2 + box / 2)).reshape(-1, 2)
    away = np.repeat(np.array(REACHES), len(ANGLES))
    if np.hypot(*box) < diameter:
        at, away = np.concatenate([mark[None], at]), np.concatenate([[0.0], away])
    return at, away


def _dashes(line: Floats) -> Floats:
    """Return a line as small boxes."""
    pieces = [np.zeros((0, 2))]
    for start, end in pairwise(line):
        if np.isfinite([start, end]).all():
            count = int(np.hypot(*(end - start)) / DASH) + 2
            pieces.append(np.linspace(start, end, count))
    points = np.concatenate(pieces)
    return np.column_stack([points, np.full(points.shape, DASH)])


def _overlaps(boxes: Floats, others: Floats) -> Floats:
    """Return how much of each box (middle, width, height) lies on others, square inches, shape (boxes,)."""
    reach = (boxes[:, None, 2:] + others[None, :, 2:]) / 2 - np.abs(boxes[:, None, :2] - others[None, :, :2])
    reach = np.minimum(np.maximum(reach, 0.0), np.minimum(boxes[:, None, 2:], others[None, :, 2:]))
    return np.asarray(reach.prod(axis=2).sum(axis=1))


def _outside(boxes: Floats, size: tuple[float, float]) -> Floats:
    """Return how much of each box lies outside of the panel, square inches."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    inside = np.maximum(np.minimum(high, np.array(size)) - np.maximum(low, 0.0), 0.0)
    return np.asarray(boxes[:, 2:].prod(axis=1) - inside.prod(axis=1))
