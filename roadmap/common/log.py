"""What a job says goes to its log."""

from contextlib import suppress


def say(line: str) -> None:
    """Write a line to the log; a full disk is no reason to end."""
    with suppress(OSError):
        try:
            print(line, flush=True)
        except UnicodeEncodeError:  # a name of a file that is not UTF-8, or a log of another encoding
            print(line.encode("ascii", "backslashreplace").decode(), flush=True)
