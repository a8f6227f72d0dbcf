"""Scenes of garments: images to find and outline things in, made from the included part of Fashion-MNIST.

A scene is a cluttered canvas with several garments of different sizes, which may overlap. It is a deterministic
function of its part (train or test) and number. Test scenes are made from test images alone, training scenes from
training images alone. The pixels of the garments say what belongs to which.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from roadmap.data.datasets import FASHION_CLASSES, load_arrays

# Raised when the same number would now be another scene.
SCENES_VERSION = 1
DATASET = "fashion_mnist_part"
SIDE = 96  # pixels
CLASSES = FASHION_CLASSES
MOST_GARMENTS, TRIES = 6, 12
SCALES = (0.7, 1.7)  # of a garment of 28 pixels
LEAST_VISIBLE, LEAST_PIXELS = 0.5, 60  # share and pixels of a garment that others leave to be seen
FAINT = 24  # 255ths; what is darker, next to the background, is taken for background
PATCHES = 24  # of the clutter
PARTS = ("train", "test")

Part = Literal["train", "test"]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Scene(NamedTuple):
    """An image, and what is in it.

    Attributes:
        image: Shape (SIDE, SIDE).
        masks: What is seen of each garment, (garments, SIDE, SIDE).
        labels: The class of each garment, (garments,).
    """

    image: Bytes
    masks: Mask
    labels: NDArray[np.int64]


def make_scene(part: Part, number: int) -> Scene:
    """Make a scene.

    Args:
        part: Whose garments.
        number: Which of the part's scenes, from 0 up.
    """
    images, labels = _garments(part)
    random = np.random.default_rng((SCENES_VERSION, PARTS.index(part), number))
    canvas = _clutter(random, images)
    whole: list[Mask] = []  # each garment's pixels, those behind others too
    seen: list[Mask] = []
    classes: list[int] = []
    for _ in range(random.integers(2, MOST_GARMENTS + 1)):
        chosen = int(random.integers(len(images)))
        garment, mask = _resized(images[chosen], random)
        for _ in range(TRIES):
            top, left = (int(random.integers(0, SIDE - size + 1)) for size in garment.shape)
            place = np.s_[top : top + garment.shape[0], left : left + garment.shape[1]]
            covers = np.zeros((SIDE, SIDE), bool)
            covers[place] = mask
            left_over = [each & ~covers for each in seen]
            if all(_is_seen(now, was) for now, was in zip(left_over, whole, strict=True)):
                canvas[place] = np.where(mask, garment, canvas[place])
                seen, whole = [*left_over, covers], [*whole, covers]
                classes.append(int(labels[chosen]))
                break
    noisy = canvas + random.normal(0, 6, canvas.shape)
    image = noisy.round().clip(0, 255).astype(np.uint8)
    return Scene(image, np.stack(seen), np.array(classes, np.int64))


def label_map(scene: Scene) -> NDArray[np.int64]:
    """Return the class of each pixel, (SIDE, SIDE): 0 for the background, 1 more than the garment's elsewhere."""
    labels = np.zeros((SIDE, SIDE), np.int64)
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        labels[mask] = label + 1
    return labels


@lru_cache(maxsize=2)
def _garments(part: Part) -> tuple[Bytes, Bytes]:
    """Return the images (N, 28, 28) and classes (N,) that scenes of a part are made from."""
    arrays = load_arrays(DATASET)
    if part == "train":
        return arrays.train[:, 0], arrays.train_labels
    return arrays.test[:, 0], arrays.test_labels


def _is_seen(now: Mask, whole: Mask) -> bool:
    return bool(now.sum() >= max(LEAST_VISIBLE * whole.sum(), LEAST_PIXELS))


def _resized(garment: Bytes, random: np.random.Generator) -> tuple[NDArray[np.float64], Mask]:
    """Return a garment in another size and light, maybe mirrored, cut out; and its pixels."""
    zoom = float(np.exp(random.uniform(*np.log(SCALES))))
    if random.random() < 0.5:
        garment = garment[:, ::-1]
    large = ndimage.zoom(garment.astype(float), zoom, order=1)
    solid = ndimage.binary_fill_holes(large > FAINT)
    pieces, count = ndimage.label(solid)
    if count > 1:  # a sandal's straps and the like: what is large of it
        sizes = ndimage.sum_labels(solid, pieces, range(1, count + 1))
        solid = np.isin(pieces, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return large[cut] * random.uniform(0.6, 1.0) + random.uniform(0, 40), solid[cut]


def _clutter(random: np.random.Generator, images: Bytes) -> NDArray[np.float64]:
    """Return a background without garments: slow changes of light, and small patches of cloth."""
    coarse = random.uniform(0, 140, (6, 6))
    canvas: NDArray[np.float64] = ndimage.zoom(coarse, SIDE / 6, order=1)
    for _ in range(PATCHES):
        height, width = random.integers(4, 11, 2)
        top, left = random.integers(0, SIDE - height), random.integers(0, SIDE - width)
        row, column = random.integers(4, 24 - height + 1), random.integers(4, 24 - width + 1)
        cloth = images[random.integers(len(images)), row : row + height, column : column + width]
        canvas[top : top + height, left : left + width] = cloth
    return canvas
