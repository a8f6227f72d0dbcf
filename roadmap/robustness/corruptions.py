"""The 15 common corruptions at 5 severities, of small images and large, grey and coloured: what cameras and weather do.

Every random draw is a function of the image's number, the severity and the corruption's name alone. Images are rounded
to bytes at the end, once. Frost is drawn (ridges of fractal noise), where the authors lay photographs of frost over an
image: what is measured can be compared between networks, not with what others publish.

Source: Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
    section 3; the parameters are those of the authors' ImageNet-C and CIFAR-10-C (github.com/hendrycks/robustness).
"""

import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import fftconvolve

from roadmap.robustness.image_filters import Floats, by_pil, plasma, smear, soften, zoom

LARGEST_SMALL = 64  # pixels: up to this height the parameters are those of CIFAR-10-C, above those of ImageNet-C

Bytes = NDArray[np.uint8]


class Corruption(NamedTuple):
    """A corruption.

    Attributes:
        apply: Corrupts images from 0 to 1, shape (N, H, W, C), with a generator for each and the parameters of a
            severity; what leaves the range is cut.
        small: The parameters of each severity for small images.
        large: Those for large ones.
    """

    apply: Callable[..., Floats]
    small: Sequence[tuple[float, ...]]
    large: Sequence[tuple[float, ...]]


def corrupt(images: Bytes, numbers: Sequence[int], name: str, severity: int) -> Bytes:
    """Corrupt images at their own size.

    Args:
        images: Bytes, shape (N, C, H, W), with one or three channels.
        numbers: The number of each image in its data set: what is drawn for it hangs on it.
        name: One of `CORRUPTIONS`.
        severity: 1 (slight) to 5.

    Returns:
        Bytes of the same shape.
    """
    chosen = CORRUPTIONS[name]
    levels = chosen.small if images.shape[2] <= LARGEST_SMALL else chosen.large
    draws = [default_rng((number, severity, zlib.crc32(name.encode()))) for number in numbers]
    corrupted = chosen.apply(images.transpose(0, 2, 3, 1) / 255, draws, *levels[severity - 1])
    rounded: Bytes = np.rint(255 * corrupted.clip(0, 1)).astype(np.uint8).transpose(0, 3, 1, 2)
    return rounded


# -- noise


def _gaussian_noise(x: Floats, draws: Sequence[Generator], scale: float) -> Floats:
    return x + scale * np.stack([draw.standard_normal(x.shape[1:]) for draw in draws])


def _shot_noise(x: Floats, draws: Sequence[Generator], photons: float) -> Floats:
    return np.stack([draw.poisson(image * photons) / photons for image, draw in zip(x, draws, strict=True)])


def _impulse_noise(x: Floats, draws: Sequence[Generator], share: float) -> Floats:
    chance = np.stack([draw.random(x.shape[1:]) for draw in draws])
    return np.where(chance < share / 2, 0.0, np.where(chance < share, 1.0, x))


# -- blur


def _defocus_blur(x: Floats, draws: Sequence[Generator], radius: float, softness: float) -> Floats:
    reach = int(radius) + 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(float)
    kernel = gaussian_filter(disk / disk.sum(), softness, mode="constant", radius=1 if radius <= 8 else 2)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    blurred: Floats = fftconvolve(padded, kernel[None, :, :, None], mode="valid", axes=(1, 2))
    return blurred


def _glass_blur(x: Floats, draws: Sequence[Generator], sigma: float, reach: int, rounds: int) -> Floats:
    x = soften(x, sigma)
    height, width = x.shape[1:3]
    moves = np.stack([draw.integers(-reach, reach, (rounds, height, width, 2)) for draw in draws])
    everyone = np.arange(len(x))
    # Each pixel in turn becomes a neighbour. The authors mean to swap the two, but their program copies one, and their
    # images are this: swaps would carry pixels along, far across the image.
    for number in range(rounds):
        for row in range(height - reach - 1, reach - 1, -1):
            for column in range(width - reach - 1, reach - 1, -1):
                down, right = moves[:, number, row, column].T
                x[:, row, column] = x[everyone, row + down, column + right]
    return soften(x, sigma)


def _motion_blur(x: Floats, draws: Sequence[Generator], radius: int, sigma: float) -> Floats:
    angles = [draw.uniform(-45, 45) for draw in draws]
    return np.stack([smear(image, radius, sigma, angle) for image, angle in zip(x, angles, strict=True)])


def _zoom_blur(x: Floats, draws: Sequence[Generator], largest: float, step: float) -> Floats:
    factors = np.arange(1, largest + step / 2, step)
    return (x + sum(zoom(x, factor) for factor in factors)) / (len(factors) + 1)


# -- weather


def _snow(
    x: Floats, draws: Sequence[Generator], amount: float, spread: float, size: float, least: float, radius: int,
    sigma: float, light: float,
) -> Floats:  # fmt: skip
    flakes = np.stack([draw.normal(amount, spread, (*x.shape[1:3], 1)) for draw in draws])
    flakes = zoom(flakes, size)
    flakes = np.where(flakes < least, 0, flakes.clip(0, 1))
    angles = [draw.uniform(-135, -45) for draw in draws]
    falling = np.stack([smear(layer, radius, sigma, angle) for layer, angle in zip(flakes, angles, strict=True)])
    grey = x @ np.array([0.299, 0.587, 0.114])[:, None] if x.shape[3] == 3 else x
    whitened = light * x + (1 - light) * np.maximum(x, 1.5 * grey + 0.5)
    return whitened + falling + falling[:, ::-1, ::-1]


def _frost(x: Floats, draws: Sequence[Generator], light: float, amount: float) -> Floats:
    ridges = 1 - np.abs(2 * plasma(draws, x.shape[1:3], 1.5) - 1)
    frosted: Floats = light * x + amount * ridges[..., None]
    return frosted


def _fog(x: Floats, draws: Sequence[Generator], amount: float, decay: float) -> Floats:
    brightest: Floats = x.max((1, 2, 3), keepdims=True)
    fogged: Floats = x + amount * plasma(draws, x.shape[1:3], decay)[..., None]
    fogged *= brightest / (brightest + amount)
    return fogged


def _brightness(x: Floats, draws: Sequence[Generator], more: float) -> Floats:
    value: Floats = x.max(3, keepdims=True)  # hue and saturation stay
    brighter: Floats = (value + more).clip(0, 1)
    return np.where(value > 0, x * (brighter / np.maximum(value, 1e-9)), brighter)


# -- digital


def _contrast(x: Floats, draws: Sequence[Generator], share: float) -> Floats:
    mean: Floats = x.mean((1, 2), keepdims=True)
    return (x - mean) * share + mean


def _elastic_transform(x: Floats, draws: Sequence[Generator], way: float, sigma: float, tilt: float) -> Floats:
    """Move pixels; lengths are shares of the image's height. Interpolated once, where the authors do it twice."""
    height, width = x.shape[1:3]
    grid = np.mgrid[:height, :width].astype(float)
    third = min(height, width) // 3
    corners = np.array([height, width]) // 2 + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = np.empty_like(x)
    for image, draw, out in zip(x, draws, moved, strict=True):
        tilted = corners + draw.uniform(-tilt * height, tilt * height, corners.shape)
        back = np.linalg.solve(np.column_stack([tilted, np.ones(3)]), corners)  # (3, 2): an affine map
        noise = draw.uniform(-1, 1, (2, height, width))
        shift = gaussian_filter(noise, (0, sigma * height, sigma * height), mode="reflect", truncate=3)
        rows, columns = grid + way * height * shift
        places = np.tensordot(back[:2].T, [rows, columns], 1) + back[2][:, None, None]
        for channel in range(x.shape[3]):
            map_coordinates(image[..., channel], places, out[..., channel], order=1, mode="mirror")
    return moved


def _pixelate(x: Floats, draws: Sequence[Generator], share: float) -> Floats:
    def coarsen(image: Image.Image) -> Image.Image:
        small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BOX)

    return by_pil(x, coarsen)


def _jpeg_compression(x: Floats, draws: Sequence[Generator], quality: int) -> Floats:
    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return by_pil(x, compress)


# -- the parameters of each severity


def _each(*values: float) -> list[tuple[Any]]:
    return [(value,) for value in values]


CORRUPTIONS = {
    "gaussian_noise": Corruption(
        _gaussian_noise, _each(0.04, 0.06, 0.08, 0.09, 0.10), _each(0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot_noise": Corruption(_shot_noise, _each(500, 250, 100, 75, 50), _each(60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(
        _impulse_noise, _each(0.01, 0.02, 0.03, 0.05, 0.07), _each(0.03, 0.06, 0.09, 0.17, 0.27)
    ),
    "defocus_blur": Corruption(
        _defocus_blur,
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "glass_blur": Corruption(
        _glass_blur,
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "motion_blur": Corruption(
        _motion_blur, [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)], [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]
    ),
    "zoom_blur": Corruption(
        _zoom_blur,
        [(1.05, 0.01), (1.10, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)],
        [(1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03)],
    ),
    "snow": Corruption(
        _snow,
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": Corruption(
        _frost,
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "fog": Corruption(
        _fog,
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "brightness": Corruption(_brightness, _each(0.05, 0.1, 0.15, 0.2, 0.3), _each(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(_contrast, _each(0.75, 0.5, 0.4, 0.3, 0.15), _each(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Corruption(
        _elastic_transform,
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
        [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)],
    ),
    "pixelate": Corruption(_pixelate, _each(0.95, 0.9, 0.85, 0.75, 0.65), _each(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Corruption(_jpeg_compression, _each(80, 65, 58, 50, 40), _each(25, 18, 15, 10, 7)),
}  # fmt: skip
