"""What several corruptions take: soft and smeared images, enlarged ones, fractal noise. Images as in `Corruption`."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]


def by_pil(x: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    """Return what Pillow makes of each image, which it takes as bytes."""
    whole = np.rint(255 * x).astype(np.uint8)
    if x.shape[3] == 1:
        whole = whole[..., 0]
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in whole]).reshape(x.shape) / 255


def soften(x: Floats, sigma: float) -> Floats:
    """Blur by a Gaussian of `sigma` pixels."""
    softened: Floats = gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")
    return softened


def smear(image: Floats, radius: int, sigma: float, angle: float) -> Floats:
    """Blur (H, W, C) along a line, to one side, with the weights of half a bell curve."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, right = (np.rint(steps * of(np.deg2rad(angle))).astype(int) + 2 * radius for of in (np.sin, np.cos))
    padded = np.pad(image, (*[(2 * radius, 2 * radius)] * 2, (0, 0)), mode="edge")
    height, width = image.shape[:2]
    parts = [w * padded[y : y + height, x : x + width] for w, y, x in zip(weights, down, right, strict=True)]
    smeared: Floats = np.sum(parts, axis=0) / weights.sum()
    return smeared


def zoom(x: Floats, factor: float) -> Floats:
    """Enlarge the middle of (N, H, W, C) to the whole."""
    rows, columns = (_enlarger(side, factor) for side in x.shape[1:3])
    enlarged: Floats = np.einsum("ih,nhwc,jw->nijc", rows, x, columns, optimize=True)
    return enlarged


def _enlarger(side: int, factor: float) -> Floats:
    """Return the matrix that enlarges the middle of a line to the whole of it, by linear interpolation."""
    inside = int(np.ceil(side / factor))
    places = np.linspace(0, inside - 1, round(inside * factor))
    places = places[(len(places) - side) // 2 :][:side] + (side - inside) // 2
    return np.stack([np.interp(places, np.arange(side), unit) for unit in np.eye(side)], axis=1)


def plasma(draws: Sequence[Generator], shape: tuple[int, int], decay: float) -> Floats:
    """Return fractal heights from 0 to 1, shape (N, *shape), by diamonds and squares; they go on across the edges."""
    size = 1 << (max(shape) - 1).bit_length()
    heights = np.zeros((len(draws), size, size))
    step, swing = size, 1.0

    def near(corners: Floats) -> Floats:
        noise: Floats = np.stack([draw.uniform(-swing, swing, corners.shape[1:]) for draw in draws])
        return corners / 4 + noise

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step].copy()
        right, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        middles = near(corners + right + below + np.roll(right, -1, 1))
        heights[:, half::step, half::step] = middles
        heights[:, ::step, half::step] = near(corners + right + middles + np.roll(middles, 1, 1))
        heights[:, half::step, ::step] = near(corners + below + middles + np.roll(middles, 1, 2))
        step, swing = half, swing / decay**2
    heights -= heights.min((1, 2), keepdims=True)
    heights /= heights.max((1, 2), keepdims=True)
    return heights[:, : shape[0], : shape[1]]
