"""Checksums of files, and a memory of what took long to read."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.paths import CACHE

CHECKSUMS = "checksums.json"
CODE_DIGITS = 12  # of SHA-256, by which a Python file of a user's is known


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Put a whole copy in its place.") from error


def code_fingerprint(path: Path) -> str:
    """Return the hash by which a Python file of a user's is known.

    Raises:
        OSError: If it cannot be read.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()[:CODE_DIGITS]


def remember(key: str, find: Callable[[], str]) -> str:
    """Return what was found for a key, by this user in any process; find it where nothing is known."""
    path = CACHE / CHECKSUMS
    known = files.read_object(path) or {}
    if isinstance(found := known.get(key), str):
        return found
    found = find()
    with suppress(files.Unwritable):  # then it is found again next time
        files.write_json(path, (files.read_object(path) or {}) | {key: found})
    return found
