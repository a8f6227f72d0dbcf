import numpy as np
import pytest

from roadmap.data.datasets import EMBEDDED
from roadmap.data.idx import find_idx, read_idx
from roadmap.robustness.corruptions import CORRUPTIONS, corrupt
from roadmap.robustness.settings import CORRUPTION_NAMES, SEVERITIES

NUMBERS = (3, 141, 592)
GREY = read_idx(find_idx(EMBEDDED, "t10k-images-idx3"))[list(NUMBERS), None]
# Colours with a smooth structure, as photographs have: small, and large enough for the parameters of large images.
WAVES = np.sin(np.arange(96) / 9)
COLOUR = (127 + 100 * np.stack([WAVES[:, None] * WAVES, WAVES[:, None] + 0 * WAVES, -WAVES + 0 * WAVES[:, None]]))[None]
SMALL, LARGE = (COLOUR[..., :side, :side].repeat(3, 0).clip(0, 255).astype(np.uint8) for side in (32, 96))
SIZES = {"small and grey": GREY, "small": SMALL, "large": LARGE}


def change(images: np.ndarray, name: str, severity: int) -> float:
    corrupted = corrupt(images, NUMBERS, name, severity)
    return float(np.abs(corrupted.astype(float) - images).mean())


def test_the_corruptions_are_the_fifteen_of_the_benchmark_in_its_order() -> None:
    assert tuple(CORRUPTIONS) == CORRUPTION_NAMES
    assert len(CORRUPTION_NAMES) == 15
    assert all(len(one.small) == len(one.large) == len(SEVERITIES) for one in CORRUPTIONS.values())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CORRUPTION_NAMES)
def test_an_image_is_corrupted_at_its_own_size_by_its_number_severity_and_name_alone(name: str, size: str) -> None:
    images = SIZES[size]
    together = corrupt(images, NUMBERS, name, 3)
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    alone = corrupt(images[2:], NUMBERS[2:], name, 3)
    assert np.array_equal(together[2:], alone)
    assert not np.array_equal(together, images)


@pytest.mark.parametrize("name", [name for name in CORRUPTION_NAMES if name != "elastic_transform"])
def test_a_corruption_of_severity_5_changes_more_than_one_of_1(name: str) -> None:
    assert change(GREY, name, 5) > change(GREY, name, 1)
    assert change(LARGE, name, 5) > change(LARGE, name, 1)


def test_noise_has_the_strength_that_the_benchmark_says() -> None:
    plain = np.full((3, 1, 32, 32), 128, np.uint8)
    noise = corrupt(plain, NUMBERS, "gaussian_noise", 5) / 255 - 128 / 255
    assert noise.std() == pytest.approx(0.10, rel=0.05)
    shot = corrupt(plain, NUMBERS, "shot_noise", 5) / 255
    assert shot.std() == pytest.approx((128 / 255 / 50) ** 0.5, rel=0.05)
    struck = corrupt(plain, NUMBERS, "impulse_noise", 5)
    assert np.isin(struck, (0, 255)).mean() == pytest.approx(0.07, abs=0.015)
    assert set(np.unique(struck)) == {0, 128, 255}


def test_brightness_keeps_hue_and_contrast_keeps_the_mean() -> None:
    brighter = corrupt(SMALL, NUMBERS, "brightness", 2).astype(float)
    inside = (brighter.max(1) < 255) & (SMALL.max(1) > 30)
    for channel in range(3):
        ratio = brighter[:, channel][inside] / brighter.max(1)[inside]
        assert ratio == pytest.approx(SMALL[:, channel][inside] / SMALL.max(1)[inside], abs=0.02)
    assert brighter.max(1)[inside] - SMALL.max(1)[inside] == pytest.approx(25.5, abs=1)
    flat = corrupt(SMALL, NUMBERS, "contrast", 5).astype(float)
    assert flat.mean((0, 2, 3)) == pytest.approx(SMALL.mean((0, 2, 3)), abs=1)
    assert flat.std() < SMALL.std()


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"])
def test_a_blur_of_one_colour_is_that_colour(name: str) -> None:
    for side in (32, 96):
        plain = np.full((3, 3, side, side), 77, np.uint8)
        assert np.array_equal(corrupt(plain, NUMBERS, name, 4), plain)
