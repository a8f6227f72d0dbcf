"""Numbers on the command line, each in its range."""

from argparse import Namespace
from typing import TYPE_CHECKING, cast

from roadmap.common.errors import UserError

if TYPE_CHECKING:
    from analysis.stats.answers import Test


def margin_of(options: Namespace) -> float | None:
    """Return the margin of top-1 within which a change is as good as none, if it was given."""
    if options.margin is None:
        return None
    try:
        margin = float(options.margin)
    except ValueError:
        margin = -1.0
    if not 0 <= margin <= 100:
        raise UserError(f"--margin: '{options.margin}' is not a number of points from 0 to 100.")
    return margin


def amount_of(text: str | None, option: str) -> float:
    """Return an option's positive number; 0 where it was not given."""
    if text is None:
        return 0.0
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < 1e9:
        raise UserError(f"{option}: '{text}' is not a number above 0.")
    return amount


def whole(text: str, option: str, least: int, most: int = 999_999_999) -> int:
    """Return an option's whole number."""
    if not text.isdecimal() or len(text) > 19 or not least <= int(text) <= most:
        raise UserError(f"{option}: '{text}' is not a whole number from {least} up (at most {most}).")
    return int(text)


def test_of(options: Namespace) -> "Test":
    """Return the rule that gives the answers."""
    from analysis.stats.answers import TESTS

    return cast("Test", options.test or TESTS[0])
