"""What a job says goes to its log."""

from contextlib import suppress


def say(line: str) -> None:
    """Write a line to the log; a full disk is no reason to end."""
    with suppress(OSError):
        print(line, flush=True)
