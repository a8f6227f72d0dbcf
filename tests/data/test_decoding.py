import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from roadmap.data.decoding import decode
from tests.data.test_folders import as_tensor, picture, stored


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"quality": 90}),
        ("RGB", "JPEG", {"quality": 90, "progressive": True, "subsampling": 0}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {}),
        ("L", "PNG", {}),
        ("RGB", "WEBP", {}),
        ("RGB", "BMP", {}),
        ("RGB", "TIFF", {}),
    ],
)
def test_a_file_is_decoded_to_what_pil_makes_of_it(mode: str, kind: str, options: dict[str, Any]) -> None:
    data = stored(picture(mode), kind, **options)
    apart = (decode(data).int() - as_tensor(Image.open(io.BytesIO(data))).int()).abs()
    assert apart.max() <= (2 if mode == "CMYK" else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_become_8_by_their_proportion(kind: str) -> None:
    deep = np.array([[0, 128, 129, 10000, 50000, 65535]], np.uint16)
    assert decode(stored(Image.fromarray(deep), kind)).tolist() == [[[0, 0, 1, 39, 195, 255]]] * 3


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colours: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rest


def test_16_bits_of_each_colour_become_8() -> None:
    row = struct.pack(">xHHHHHH", 10000, 50000, 0, 65535, 257, 10000)
    assert decode(png(2, 1, 16, 2, row))[:, 0].T.tolist() == [[39, 195, 0], [255, 1, 39]]


@pytest.mark.parametrize("pixels", [np.array([[7, 70000]], np.int32), np.array([[0.25, 1.0]], np.float32)])
def test_pixels_without_a_known_range_are_refused(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"its pixels are .*, of which nothing says what black and white are"):
        decode(stored(Image.fromarray(pixels), "TIFF"))


def _palette() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (_palette(), {"transparency": b"\x00\xff\xff"}),
        (_palette(), {"transparency": 0}),
        (Image.fromarray(np.array([[[9, 9, 9, 0], [0, 255, 0, 255], [0, 0, 255, 255]]], np.uint8)), {}),
    ],
)
def test_what_is_transparent_is_white(image: Image.Image, options: dict[str, Any]) -> None:
    assert decode(stored(image, "PNG", **options))[:, 0].T.tolist() == [[255, 255, 255], [0, 255, 0], [0, 0, 255]]


def test_half_of_a_transparent_grey_is_half_white() -> None:
    grey = Image.fromarray(np.array([[[100, 128]]], np.uint8), "LA")
    assert abs(int(decode(stored(grey, "PNG"))[0, 0, 0]) - 177) <= 1


def test_black_and_white_stay_so() -> None:
    bits = Image.fromarray(np.array([[False, True]]))
    assert decode(stored(bits, "PNG")).tolist() == [[[0, 255]]] * 3


def test_orientation_is_not_applied_as_in_timm() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert torch.equal(decode(stored(picture(), exif=exif)), decode(stored(picture())))
