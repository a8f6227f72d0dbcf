"""Files that are written whole or not at all, and JSON that is read with care."""

import errno
import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from roadmap.common.errors import UserError

T = TypeVar("T")
PATIENCE_S, RETRY_EVERY_S = 600.0, 5.0  # with a disk that is full, or a file server that does not answer


# What may pass by itself: no room, a file that another machine has just replaced, a network that is away.
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO)


class Unwritable(UserError):
    """A file cannot be written: the disk is full (which may pass), or the folder is not ours, or gone."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(f"{path}: cannot be written ({cause.strerror or cause}). Nothing there was changed.")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], name: Callable[[], Path] | None = None) -> None:
    """Write a file so that a reader finds the old or the new content and never half of one, whatever is killed when.

    Args:
        path: The file.
        write: Writes its content.
        name: Says what to call it once it is written; None leaves it at `path`.

    Raises:
        Unwritable: If the folder cannot be written or the disk is full; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path if name is None else name())
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        cause = _os_error(error)
        if cause is None:
            raise
        raise Unwritable(path, cause) from error


def may_pass(error: BaseException) -> bool:
    """Whether the system's error behind this one may pass by itself."""
    cause = _os_error(error)
    return cause is not None and cause.errno in PASSING


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the system's error behind another (torch.save wraps it), if there is one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def check_writable(folder: Path, option: str = "--out") -> None:
    """Refuse a folder that cannot be written, or made, before work is done for it; `option` chooses another.

    Raises:
        UserError: If it, or the nearest folder above it that is there, is none or is not ours to write.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: cannot be written ({there} is no folder to write in). Choose another with {option}."
        )


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json_once(path: Path, content: Any) -> bool:
    """Write JSON whole, unless the file is there; of several at once, on machines that share a folder too, one does.

    Returns:
        Whether it was this call that wrote it.

    Raises:
        Unwritable: If the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    write_json(temporary, content)
    try:
        link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise Unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def link(temporary: Path, path: Path) -> None:
    """Give a file its name, which, unlike a rename, fails where the name is taken.

    Raises:
        OSError: `FileExistsError` where it is taken, another if it cannot be done.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS may have made the link and lost the answer: then the name is ours.
        if temporary.stat().st_nlink != 2:
            raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with path.open("x") as file:  # a file system without links; for a moment the file is empty, as if damaged
            file.write(temporary.read_text())


def read_json(path: Path) -> Any:
    """Read JSON; None where the file is missing or unreadable as JSON (a machine that died while writing).

    Raises:
        UserError: If the file is there and cannot be read.
    """
    content = _read(path)
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None


def _read(path: Path) -> bytes | None:
    """Return what a file holds; None where it is missing."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def read_as(path: Path, schema: TypeAdapter[T]) -> T | None:
    """Read JSON of a schema, strictly; None where the file is missing, damaged, or does not fit it.

    Raises:
        UserError: If the file is there and cannot be read.
    """
    content = _read(path)
    try:
        return None if content is None else schema.validate_json(content, strict=True)
    except ValidationError:
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where `read_json` finds nothing, or something else."""
    content = read_json(path)
    return content if isinstance(content, dict) else None


def is_finite(value: object) -> bool:
    """Whether a value that was read is a number to go on with."""
    return isinstance(value, int | float) and abs(value) < 1e18
