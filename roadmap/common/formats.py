"""Numbers as people read them: counts with a unit, durations."""

import math


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
