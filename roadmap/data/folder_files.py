"""The files of an image folder: one list of them, for the plan, the fingerprint and the training.

A class is a folder straight in train/ and val/, and its images lie anywhere below it. Symbolic links are followed. What
is hidden, or no image, is left out, which the plan says; what cannot be read is an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

from roadmap.common.errors import UserError
from roadmap.common.files import in_unicode
from roadmap.common.fingerprints import checksum, remember

PARTS = ("train", "val")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
THREADS = 16  # that ask a file server, which takes its time to answer
SHOWN = 3  # examples of what is left out


class File(NamedTuple):
    """An image: its path below the folder, its size in bytes, when it was last changed in seconds, its class."""

    path: str
    size: int
    modified: int
    label: int


@dataclass(frozen=True)
class FolderFiles:
    """What an image folder holds.

    Attributes:
        root: The folder.
        classes: Their names in the order of their labels: numbers in them count as numbers, as in timm.
        train: The images of train/, in an order that the names decide.
        val: Those of val/; none where there is no such folder.
        left_out: Paths of what is neither an image nor a class.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[File, ...]
    val: tuple[File, ...]
    left_out: tuple[str, ...]

    def fingerprint(self, version: int) -> str:
        """Return a hash of the names, sizes and times of all images, of what is made of them, and nothing else."""
        digest = hashlib.sha256(f"{version}\n".encode())
        for file in (*self.train, *self.val):
            digest.update(os.fsencode(file.path) + f"\0{file.size} {file.modified}\n".encode())
        return digest.hexdigest()[:16]

    def content(self, version: int) -> str:
        """Return a hash of the names and the content of all images; read once for each `fingerprint`."""

        def read() -> str:
            digest = hashlib.sha256(f"{version}\n".encode())
            files = [*self.train, *self.val]
            with ThreadPoolExecutor(THREADS) as pool:
                sums = pool.map(lambda file: checksum(self.root / file.path), files)
                for file, found in zip(files, sums, strict=True):
                    digest.update(os.fsencode(file.path) + f"\0{found}\n".encode())
            return digest.hexdigest()[:16]

        return remember(self.fingerprint(version), read)

    def notes(self) -> tuple[str, ...]:
        """Say what is left out, if anything is."""
        if not self.left_out:
            return ()
        some = ", ".join(self.left_out[:SHOWN]) + (", ..." if len(self.left_out) > SHOWN else "")
        return (
            f"{self.root}: {len(self.left_out)} entries are left out, since they are hidden, no images "
            f"({', '.join(ENDINGS)}) or folders without any: {some}",
        )


class FolderReader:
    """The images of a part, as timm's readers give them."""

    def __init__(self, root: Path, files: tuple[File, ...]) -> None:
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[IO[bytes], int]:
        return (self.root / self.files[number].path).open("rb"), self.files[number].label

    def filename(self, number: int, absolute: bool = False) -> str:
        """Return the path of an image; the folder's comes first where it is to be absolute."""
        path = self.files[number].path
        return str(self.root / path) if absolute else path


class _Found(NamedTuple):
    """What lies below a folder: images with their size and time, and paths that are left out."""

    images: list[tuple[str, int, int]]
    left_out: list[str]


def list_files(root: Path, needs_test: bool = True, *, anew: bool = False) -> FolderFiles:
    """List the images of a folder; each is asked for its size and time, none is opened. A list is kept in memory.

    Args:
        root: The folder.
        needs_test: Whether there must be a val/.
        anew: Whether to look again, at what may have changed since it was listed.

    Raises:
        UserError: If it is no image folder, something in it cannot be read, or its two parts differ in classes.
    """
    if anew:
        _list.cache_clear()
    return _list(root, PARTS if needs_test or (root / "val").is_dir() else PARTS[:1])


@cache
def _list(root: Path, parts: tuple[str, ...]) -> FolderFiles:
    found = {part: _list_part(root, part) for part in parts}
    classes = {part: {name for name, below in of.items() if below.images} for part, of in found.items()}
    if odd := sorted(classes["train"] ^ classes.get("val", classes["train"])):
        raise UserError(
            f"{root}: train/ and val/ differ in classes: {', '.join(odd[:5])} in one only. Both need images of the "
            "same ones."
        )
    labels = {name: label for label, name in enumerate(sorted(classes["train"], key=_natural))}
    files = {
        part: tuple(
            File(path, size, modified, labels[name])
            for path, size, modified, name in sorted(
                ((*image, name) for name, below in of.items() for image in below.images), key=lambda f: _natural(f[0])
            )
        )
        for part, of in found.items()
    }
    left_out = sorted(path for of in found.values() for below in of.values() for path in below.left_out)
    return FolderFiles(root, tuple(map(in_unicode, labels)), files["train"], files.get("val", ()), tuple(left_out))


def _list_part(root: Path, part: str) -> dict[str, _Found]:
    """Return what lies below each folder in a part, by its name; under "" what lies beside them."""
    top = root / part
    if not top.is_dir():
        raise UserError(f"{root}: no folder '{part}'. An image folder has train/ and val/, each a folder a class.")
    folders, beside = [], _Found([], [])
    for entry in _entries(top):
        if not entry.name.startswith(".") and _is_folder(entry):
            folders.append(entry.name)
        elif _is_image(entry.name):
            raise UserError(
                f"{top / entry.name}: an image that is in no class. Move it to the folder of its class, or away."
            )
        else:
            beside.left_out.append(f"{part}/{entry.name}")
    with ThreadPoolExecutor(THREADS) as pool:
        below = list(pool.map(lambda name: _list_below(root, f"{part}/{name}", ()), folders))
    found = dict(zip(folders, below, strict=True))
    for name, of in found.items():
        if not of.images:
            beside.left_out.append(f"{part}/{name}")
    if not any(of.images for of in found.values()):
        raise UserError(f"{top}: no images ({', '.join(ENDINGS)}) in it.")
    return found | {"": beside}


def _list_below(root: Path, path: str, above: tuple[tuple[int, int], ...]) -> _Found:
    """Return what lies below a folder; `above` are the folders that it lies in, which a link could lead back to."""
    found = _Found([], [])
    here = os.stat(root / path)
    if (here.st_dev, here.st_ino) in above:
        raise UserError(f"{root / path}: is a link to a folder that it lies in. Remove it.")
    for entry in _entries(root / path):
        name = f"{path}/{entry.name}"
        if entry.name.startswith("."):
            found.left_out.append(name)
        elif _is_folder(entry):
            below = _list_below(root, name, (*above, (here.st_dev, here.st_ino)))
            found.images.extend(below.images)
            found.left_out.extend(below.left_out)
        elif _is_image(entry.name):
            found.images.append((name, *_look_at(entry)))
        else:
            found.left_out.append(name)
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}). Make it readable, or take it out.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise UserError(
            f"{entry.path}: cannot be read ({error.strerror}). Make it readable, or take it out."
        ) from error


def _look_at(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Return an image's size and time.

    Raises:
        UserError: If it is no file with something in it, or cannot be read.
    """
    try:
        about = entry.stat()
    except OSError as error:
        raise UserError(f"{entry.path}: cannot be read ({error.strerror}). Put a whole copy in its place.") from error
    if not stat.S_ISREG(about.st_mode) or not about.st_size:
        what = "is empty" if stat.S_ISREG(about.st_mode) else "is no file"
        raise UserError(f"{entry.path}: {what}. Put a whole copy in its place, or take it out.")
    if not os.access(entry.path, os.R_OK):
        raise UserError(f"{entry.path}: cannot be read (Permission denied). Make it readable, or take it out.")
    return about.st_size, int(about.st_mtime)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _natural(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts 2 before 10, as timm sorts; names that differ in case alone have an order too."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
