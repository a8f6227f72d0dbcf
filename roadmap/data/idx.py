"""Files in the idx layout of MNIST and its successors, plain or compressed (gzip, xz)."""

import gzip
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from roadmap.common.errors import UserError

_OPENERS: dict[str, Callable[..., IO[bytes]]] = {".gz": gzip.open, ".xz": lzma.open}  # type: ignore[dict-item]


def find_idx(folder: Path, name: str) -> Path:
    """Return the idx file of that name in a folder, whatever its compression.

    Raises:
        UserError: If there is none.
    """
    names = [f"{name}-ubyte{suffix}" for suffix in ("", ".gz", ".xz")]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise UserError(f"{folder}: no {names[0]} here (nor .gz or .xz of it). Give the folder that holds the idx files.")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes into an array of the shape that its head states.

    Raises:
        UserError: If the file cannot be unpacked, is not idx, or is shorter or longer than its head says.
    """
    way_out = "Put a whole copy in its place."
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error or type(error).__name__}). {way_out}") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        first = content[:4].hex() or "missing"
        raise UserError(f"{path}: not an idx file of bytes (its first bytes are {first}). {way_out}")
    dims = content[3]
    shape = struct.unpack(f">{dims}I", content[4 : 4 + 4 * dims])
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * dims)
    if data.size != np.prod(shape):
        raise UserError(f"{path}: holds {data.size} bytes, but its head says {shape}: truncated or mixed up. {way_out}")
    return data.reshape(shape).copy()  # writable, as torch wants it


def write_idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array of bytes in the idx layout."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
