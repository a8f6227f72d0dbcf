"""From an image file's bytes to colours from 0 to 255, as one sees the image.

JPEGs are decoded by simplejpeg, which is faster than PIL; the rest, and what simplejpeg refuses, by PIL. 16 bits become
8 by their proportion, what is transparent becomes white, and pixels without a known range are refused. Of several
frames the first counts. As in timm, the orientation that a camera notes (EXIF) and colour profiles are not applied.
"""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import decode_jpeg
from torch import Tensor

JPEG = b"\xff\xd8\xff"  # how its files begin
DEEP = ("PNG", "PPM")  # files in which PIL's 32-bit integers stand for 16 bits


def decode(data: bytes) -> Tensor:
    """Decode an image file to RGB.

    Returns:
        uint8, shape (3, H, W), channels last in memory.

    Raises:
        Exception: If it is damaged, no image, or has pixels without a known range: PIL raises what it likes.
    """
    if data.startswith(JPEG):
        try:
            return torch.from_numpy(decode_jpeg(data)).permute(2, 0, 1)
        except ValueError:
            pass  # PIL knows more kinds (CMYK), and what is wrong with the others
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(to_rgb(image)).permute(2, 0, 1)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return an image's colours, uint8 (H, W, 3).

    Raises:
        ValueError: If its pixels are numbers of which nothing says what black and white are.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in DEEP):
        grey = ((np.array(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.stack([grey] * 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(
            f"its pixels are {kind}, of which nothing says what black and white are; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(clear)
    return np.array(image.convert("RGB"))
