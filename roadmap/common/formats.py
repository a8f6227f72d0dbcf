"""Numbers as people read them: counts with a unit, durations."""

import math

MINUS = "\N{MINUS SIGN}"


def big(value: float | None) -> str:
    """Return a count with three digits and its unit (G, M, k); nothing for what is missing."""
    if value is None or math.isnan(value):
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}" if value < 10 * size else f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None, form: str) -> str:
    """Return a number in a format, with a true minus; nothing for what is missing."""
    return "" if value is None or math.isnan(value) else format(value, form).replace("-", MINUS)


def change(value: float | None, form: str) -> str:
    """Return a change with its sign; one that rounds to nothing has none."""
    text = number(value, f"+{form}")
    return text if any(digit in "123456789" for digit in text) else text.lstrip(f"+{MINUS}")


def interval(low: float | None, high: float | None, form: str) -> str:
    """Return the ends of an interval; nothing where one is missing."""
    ends = (change(low, form), change(high, form))
    return " to ".join(ends) if all(ends) else ""


def printable(text: str) -> str:
    """Return a text that others wrote as a terminal can show it: control characters as Python writes them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
