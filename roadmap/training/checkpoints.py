"""Checkpoints of a run: written whole, told apart by step, checked before they are believed; the last two are kept.

A checkpoint is called checkpoint-<step>-<sha256 of its content>.pt, so the file itself says whether it is whole.
"""

import hashlib
import re
from pathlib import Path
from typing import IO, Any

import torch

from roadmap.common import files
from roadmap.common.log import say

KEPT = 2
NAME = re.compile(r"checkpoint-(\d+)-([0-9a-f]{64})\.pt")


class _Hashing:
    """A file to write to, and the hash of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_checkpoint(folder: Path, step: int, content: dict[str, Any]) -> None:
    """Write a checkpoint and remove those that are older than the one before.

    Raises:
        Unwritable: If the disk is full or the folder cannot be written; what was there stays.
    """
    digest = ""

    def write(file: IO[bytes]) -> None:
        nonlocal digest
        hashing = _Hashing(file)
        torch.save(content, hashing)  # type: ignore[arg-type]
        digest = hashing.hash.hexdigest()

    files.write_atomically(folder / "checkpoint", write, lambda: folder / f"checkpoint-{step:09d}-{digest}.pt")
    for old in checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, the latest first."""
    return sorted((path for path in folder.glob("checkpoint-*.pt") if NAME.fullmatch(path.name)), reverse=True)


def read_last(folder: Path, device: str) -> tuple[Path, dict[str, Any]] | None:
    """Read the latest checkpoint that is as it was written; say so and remove it where a later one is not.

    Returns:
        Where it was and what it holds; None where there is none.
    """
    for path in checkpoints(folder):
        match = NAME.fullmatch(path.name)
        assert match is not None
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != match[2]:
                    raise ValueError("its checksum differs")
            return path, read_checkpoint(path, device)
        except (OSError, MemoryError, torch.OutOfMemoryError):
            raise  # says nothing about the file
        except Exception as error:  # torch.load raises what it likes
            say(f"{path}: damaged ({error}) and removed. What was saved before it is used.")
            path.unlink(missing_ok=True)
    return None


def read_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values alone, never code."""
    content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return content


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run."""
    for path in checkpoints(folder):
        path.unlink(missing_ok=True)
