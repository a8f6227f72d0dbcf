"""Files that are written whole or not at all, and JSON that is read with care."""

import errno
import json
import os
import stat
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from roadmap.common.errors import UserError

T = TypeVar("T")
PATIENCE_S, RETRY_EVERY_S = 600.0, 5.0  # with a disk that is full, or a file server that does not answer


# What may pass by itself: no room, a file that another machine has just replaced, a network that is away, no memory or
# too many processes.
PASSING = (
    errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO,
    errno.ENOMEM, errno.EAGAIN, errno.ENFILE,
)  # fmt: skip


class Unwritable(UserError):
    """A file cannot be written: the disk is full (which may pass), or the folder is not ours, or gone."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(f"{path}: cannot be written ({cause.strerror or cause}). Nothing there was changed.")


class MayPass(UserError):
    """Something is in the way that may pass by itself; unlike an OSError, it comes whole out of a decoding worker."""


class LostWorker(Exception):
    """A decoding worker was killed, which is not the doing of the run that it worked for."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader finds the old or the new content and never half of one, whatever is killed when.

    Args:
        path: The file.
        write: Writes its content.

    Raises:
        Unwritable: If the folder cannot be written or the disk is full; the old file stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unwritable(path, error) from error
    write_through(path.with_name(f".{path.name}.{uuid.uuid4().hex}"), path, write)


def write_through(
    temporary: Path,
    path: Path,
    write: Callable[[IO[bytes]], object],
    name: Callable[[], Path] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Write a file under another name, and give it its own when it is whole.

    Args:
        temporary: The other name; there must be no such file.
        path: The file.
        write: Writes its content.
        name: Says what to call it once it is written; None leaves it at `path`.
        durable: Whether it must survive a power failure.

    Raises:
        Unwritable: If the folder cannot be written or the disk is full; the old file stays.
    """
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            if durable:
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
    if isinstance(error, MayPass):
        return True
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
    write_atomically(path, json_of(content))


def json_of(content: Any) -> Callable[[IO[bytes]], object]:
    """Return what writes a value as JSON; what is no Unicode in it (a file's name) is written as one can read it."""
    text = json.dumps(_in_unicode(content), indent=1) + "\n"
    return lambda file: file.write(text.encode())


def _in_unicode(content: Any) -> Any:
    if isinstance(content, str):
        return in_unicode(content)
    if isinstance(content, Mapping):
        return {_in_unicode(key): _in_unicode(value) for key, value in content.items()}
    return [_in_unicode(part) for part in content] if isinstance(content, list | tuple) else content


def in_unicode(text: str) -> str:
    """Return a text, such as a file's name, with a mark in place of each byte that is no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def check_name(path: str | Path | None, option: str) -> None:
    """Refuse a path that tables, logs and scripts could not hold.

    Raises:
        UserError: If it is not UTF-8, or, where it is relative, the current folder is not.
    """
    if path is None:
        return
    whole = os.path.abspath(path)
    if in_unicode(whole) != whole:
        raise UserError(
            f"{option} {in_unicode(whole)}: its name is not UTF-8. Rename it, or make a link to it with another name."
        )


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
        with open_regular(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


class NoRegularFile(OSError):
    """What is there is no file, but a pipe (at which one would wait for ever) or a device."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, and only a file.

    Raises:
        OSError: If it cannot be opened, or is something else.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise NoRegularFile(kind, os.strerror(kind) if kind == errno.EISDIR else "it is no regular file", str(path))
    return open(number, "rb")


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
