"""Frames as CSV that a spreadsheet can open safely: no text in them is a formula."""

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a cell that begins so for


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in which no text is a formula to a spreadsheet: those that look so begin with a quote."""
    words = {name: frame[name].map(_unformulated) for name in frame.select_dtypes(["object", "string"]).columns}
    return frame.assign(**words).to_csv(index=False)


def _unformulated(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_written(text: str) -> str:
    """Return a text as it was before `csv_text` kept a spreadsheet from computing it."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA) else text
