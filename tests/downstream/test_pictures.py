"""Pictures of what was found show images, what is in them, and what was found, and nothing where there is nothing."""

import numpy as np
import torch
from PIL import Image

from docs.generate import SCENES, scenes
from roadmap.downstream.pictures import GAP, Example, Found, colour_of, picture_of


def test_the_picture_in_the_documentation_is_of_the_scenes_as_they_are_now() -> None:
    assert np.array_equal(np.asarray(Image.open(SCENES)), np.asarray(scenes())), "Run `make reference`."


def test_things_have_the_colour_of_their_class_and_their_boxes() -> None:
    mask = torch.zeros(1, 200, 200)
    mask[0, 50:100, 20:60] = 1
    there = Found(mask, [4], torch.tensor([[20.0, 50, 60, 100]]))
    nothing = Found(mask[:0], [], torch.zeros(0, 4))
    picture = np.asarray(picture_of([Example(torch.zeros(1, 200, 200), there, nothing)]))
    assert picture.shape == (3 * (200 + GAP), 200 + GAP, 3)
    image, first, second = (picture[start : start + 200, :200] for start in (0, 200 + GAP, 2 * (200 + GAP)))
    assert np.array_equal(image, second)
    assert tuple(first[50, 20]) == colour_of(4)
    assert np.array_equal((first != image).any(2), mask[0].numpy() > 0)


def test_neighbouring_classes_have_colours_that_differ() -> None:
    colours = np.array([colour_of(label) for label in range(150)], float)
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).min() > 60
    assert len({tuple(colour) for colour in colours[:20]}) == 20
