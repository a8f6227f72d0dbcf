"""Pictures of what a detector or segmenter finds: test images, what is there, what was found, side by side."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

GAP, STRENGTH, LEAST_SIDE = 4, 0.55, 192  # pixels between images; of colours over an image; side of an image shown
Pixels = NDArray[np.uint8]


class Found(NamedTuple):
    """What is in an image, or was found there.

    Attributes:
        masks: Where each thing or class is, (n, H, W).
        labels: The number of each one's class, which has a colour.
        boxes: Of things, (n, 4); None for classes of pixels.
    """

    masks: Tensor
    labels: Sequence[int]
    boxes: Tensor | None = None


class Example(NamedTuple):
    """An image as the network saw it, (C, H, W), what is in it, and what was found in it."""

    image: Tensor
    there: Found
    found: Found | None


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the colour of a class: neighbours in the list differ, and grey is none of them."""
    hue, light = (label * 0.381966) % 1, (0.5, 0.65)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def picture_of(examples: Sequence[Example]) -> Image.Image:
    """Return a picture with a row for each kind of view (image, what is there, what was found) and a column an example.

    Args:
        examples: What to show; images of one size.
    """
    columns = []
    for example in examples:
        grey = _as_bytes(example.image)
        views = [grey, *(_over(grey, found) for found in example[1:] if found is not None)]
        columns.append(_stack([_enlarged(view) for view in views], 0))
    return Image.fromarray(_stack(columns, 1))


def _as_bytes(image: Tensor) -> Pixels:
    """Return a normalised image as bytes (H, W, 3), its darkest pixel black and its brightest white."""
    low, high = image.min(), image.max()
    pixels = (255 * (image - low) / (high - low).clamp(min=1e-6)).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def _over(pixels: Pixels, found: Found) -> Pixels:
    colours = pixels.astype(float)
    for mask, label in zip(found.masks.numpy().astype(bool), found.labels, strict=True):
        colours[mask] = (1 - STRENGTH) * colours[mask] + STRENGTH * np.array(colour_of(label))
    picture = Image.fromarray(colours.round().astype(np.uint8))
    if found.boxes is not None:
        draw = ImageDraw.Draw(picture)
        for box, label in zip(found.boxes.tolist(), found.labels, strict=True):
            draw.rectangle([box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])], outline=colour_of(label))
    return np.asarray(picture)


def _enlarged(pixels: Pixels) -> Pixels:
    """Return small images larger by a whole factor."""
    factor = max(1, -(-LEAST_SIDE // max(pixels.shape[:2])))
    return pixels.repeat(factor, 0).repeat(factor, 1)


def _stack(parts: Sequence[Pixels], axis: int) -> Pixels:
    """Return images in a row (1) or a column (0), on white."""
    width = max(part.shape[1 - axis] for part in parts)
    padded = []
    for part in parts:
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[1 - axis] = (0, width - part.shape[1 - axis])
        pad[axis] = (0, GAP)
        padded.append(np.pad(part, pad, constant_values=255))
    return np.concatenate(padded, axis)
