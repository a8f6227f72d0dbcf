"""Checkpoints of a run: written whole, told apart by step, checked before they are believed; the last two are kept.

A checkpoint is called checkpoint-<step>-<sha256 of its content>.pt, so the file itself says whether it is whole.
"""

import hashlib
import re
from pathlib import Path
from typing import IO, Any, NotRequired

import torch
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from roadmap.common.files import NoRegularFile, open_regular
from roadmap.common.log import say
from roadmap.runs.claims import Writer
from roadmap.runs.run_folder import Count, Finite

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


def write_checkpoint(writer: Writer, step: int, content: dict[str, Any]) -> None:
    """Write a checkpoint and remove those that are older than the one before.

    Raises:
        Lost: If the run is another's.
        Unwritable: If the disk is full or the folder cannot be written; what was there stays.
    """
    digest = ""

    def write(file: IO[bytes]) -> None:
        nonlocal digest
        hashing = _Hashing(file)
        torch.save(content, hashing)  # type: ignore[arg-type]
        digest = hashing.hash.hexdigest()

    folder = writer.folder
    writer.write(folder / "checkpoint", write, lambda: folder / f"checkpoint-{step:09d}-{digest}.pt")
    for old in checkpoints(folder)[KEPT:]:
        writer.remove(old)


def checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, the latest first."""
    return sorted((path for path in folder.glob("checkpoint-*.pt") if NAME.fullmatch(path.name)), reverse=True)


def read_last(writer: Writer, device: str) -> tuple[Path, dict[str, Any]] | None:
    """Read the latest checkpoint that is as it was written; say so and remove it where a later one is not.

    Returns:
        Where it was and what it holds; None where there is none.
    """
    for path in checkpoints(writer.folder):
        match = NAME.fullmatch(path.name)
        assert match is not None
        try:
            with open_regular(path) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != match[2]:
                    raise ValueError("its checksum differs")
            return path, read_checkpoint(path, device)
        except NoRegularFile as error:
            say(f"{path}: {error.strerror}, and is passed over.")
        except (OSError, MemoryError, torch.OutOfMemoryError):
            raise  # says nothing about the file
        except Exception as error:  # torch.load raises what it likes
            say(f"{path}: damaged ({error}) and removed. What was saved before it is used.")
            writer.remove(path)
    return None


def read_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values alone, never code."""
    content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return content


class Progress(TypedDict):
    """What a checkpoint holds beside the states of network, optimizer, scaler and moving average."""

    step: Count
    loss_sum: Finite
    history: list[dict[str, Any]]
    train_s: Finite
    wall_s: Finite
    processes: Count
    threads: NotRequired[Count]


_PROGRESS = TypeAdapter(Progress)


def progress_in(content: dict[str, Any]) -> Progress:
    """Return how far a run was when it wrote a checkpoint.

    Raises:
        ValueError: If the checkpoint is of something else.
    """
    known = {name: content[name] for name in Progress.__annotations__ if name in content}
    return _PROGRESS.validate_python(known, strict=True)


def remove_checkpoints(writer: Writer) -> None:
    """Remove all checkpoints of a run."""
    for path in checkpoints(writer.folder):
        writer.remove(path)
