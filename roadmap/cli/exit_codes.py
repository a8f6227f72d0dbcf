"""What a command's exit code says."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1  # a check or a run failed
    REFUSED = 2  # cannot be done as asked: a `UserError`
    INTERRUPTED = 130  # Ctrl-C, as shells have it
