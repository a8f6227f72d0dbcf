"""The one error that reaches a user as a message: place, value, rule and way out, without a traceback."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Something that the user can mend: a name, a file, a value. Programs print it and exit with code 2."""


class FieldErrors(UserError):
    """Everything that is wrong with a file's content, each error with the keys that lead to it, for the line."""

    def __init__(self, errors: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("\n".join(text for _, text in errors))
        self.errors = tuple(errors)


def unknown(what: str, found: object, known: Iterable[str], *, place: str = "") -> UserError:
    """Return the error for a name that does not exist, with the nearest one and all that do.

    Args:
        what: The kind of thing that was named, such as "base".
        found: The name that was given.
        known: Every name that would have been right.
        place: Where it was given, such as "steps.yaml: rung 'gelu'"; left out for the command line.
    """
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(found), names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    prefix = f"{place}: " if place else ""
    return UserError(f"{prefix}unknown {what} '{found}'.{hint} Known: {', '.join(names)}.")
