"""Fractional factorial plans: which combinations of some steps are trained, so that few networks tell most.

With all combinations of n steps every effect could be told, in 2^n networks. A fraction takes 2^(n-p) of them: the last
p steps are taken where the product of some of the first ones says so. The price are effects that always come together
(aliases). A plan of resolution III has effects of one step together with effects of two, one of resolution IV effects
of two together with others of two; from resolution V on all of these are apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from roadmap.common.errors import UserError

# Steps -> networks -> the generators of the steps beyond those of a whole plan: E=ABC is written ABC where E is next.
# Each has as few aliases among effects of few steps as a plan of its size can have (minimum aberration).
# Source: Box, Hunter & Hunter 2005, "Statistics for Experimenters", table 6.22; Montgomery 2012, "Design and Analysis
#     of Experiments", table 8.14; the criterion: Fries & Hunter 1980, "Minimum aberration 2^(k-p) designs".
GENERATORS = {
    3: {4: "AB", 8: ""},
    4: {8: "ABC", 16: ""},
    5: {8: "AB AC", 16: "ABCD", 32: ""},
    6: {8: "AB AC BC", 16: "ABC BCD", 32: "ABCDE", 64: ""},
    7: {8: "AB AC BC ABC", 16: "ABC BCD ACD", 32: "ABCD ABDE", 64: "ABCDEF"},
    8: {16: "BCD ACD ABC ABD", 32: "ABC ABD BCDE", 64: "ABCD ABEF"},
    9: {16: "ABC BCD ACD ABD ABCD", 32: "BCDE ACDE ABDE ABCE", 64: "ABCD ACEF CDEF"},
    10: {16: "ABC BCD ACD ABD ABCD AB", 32: "ABCD ABCE ABDE ACDE BCDE", 64: "BCDF ACDF ABDE ABCE"},
    11: {16: "ABC BCD ACD ABD ABCD AB AC", 32: "ABC BCD CDE ACD ADE BDE", 64: "CDE ABCD ABF BDEF ADEF"},
}
LETTERS = "ABCDEFGHJKL"
LEAST_STEPS, MOST_STEPS = min(GENERATORS), max(GENERATORS)
CLEAR = 4  # the resolution that is taken where nobody says how many networks
ROMAN = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII"}


@dataclass(frozen=True)
class Effect:
    """What a plan can tell: the effect of one step or of two together, and the others that it always comes with.

    Attributes:
        steps: The step, or the two of which is told what they do beyond the sum of both.
        aliases: The others, each one step or two: what is seen is the sum of all.
    """

    steps: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...] = ()

    @property
    def name(self) -> str:
        """What it is called, in tables and figures: its aliases too, so that nobody takes it for the one alone."""
        more = (
            f" or {len(self.aliases)} others"
            if len(self.aliases) > 1
            else "".join(f" or {combined(alias)}" for alias in self.aliases)
        )
        return combined(self.steps) + more


@dataclass(frozen=True)
class Fraction:
    """A plan: which of some steps each of its networks has.

    Attributes:
        steps: The steps.
        taken: Of each network, whether it has each step, shape (networks, steps); fewer steps first.
        rungs: The networks' ids, in that order.
    """

    steps: tuple[str, ...]
    taken: tuple[tuple[bool, ...], ...]
    rungs: tuple[str, ...] = ()

    @property
    def resolution(self) -> int | None:
        """Of how many steps the smallest two effects are together that come together; None where all are apart."""
        return resolution_of(len(self.steps), len(self.taken))

    @property
    def effects(self) -> list[Effect]:
        """What it can tell, effects of one step first; effects of three steps and more are taken to be none."""
        together: dict[tuple[int, ...], list[tuple[str, ...]]] = {}
        places = range(len(self.steps))
        for word in [*combinations(places, 1), *combinations(places, 2)]:
            together.setdefault(self.signs(word), []).append(tuple(self.steps[place] for place in word))
        return [Effect(first, tuple(others)) for first, *others in together.values()]

    def signs(self, word: Sequence[int]) -> tuple[int, ...]:
        """Return of each network on which side of an effect it is: the product of 1 and -1 over its steps, by place."""
        return tuple((-1) ** sum(not row[place] for place in word) for row in self.taken)

    def describe(self) -> list[str]:
        """Say what it can tell and what not, a sentence each."""
        count, networks = len(self.steps), len(self.taken)
        sizes = {other: _name_of(count, other) for other in GENERATORS[count] if other != networks}
        ways = ", ".join(f"--samples {other} ({name})" for other, name in sizes.items())
        more = [f"Other plans of {count} steps: {ways}."]
        if self.resolution is None:
            return [f"All {networks} combinations of {count} steps: every effect is told apart.", *more]
        kinds = {
            3: "effects of one step come together with effects of two",
            4: "effects of one step are clear of those of two, and some effects of two come together",
        }
        told = kinds.get(self.resolution, "effects of one step and of two are clear of each other")
        return [
            f"{networks} of {2**count} combinations of {count} steps, resolution {ROMAN[self.resolution]}: {told}. "
            "Effects of three steps together and of more are taken to be none.",
            *more,
        ]


def combined(steps: Sequence[str]) -> str:
    """Return what the effect of some steps is called."""
    return " x ".join(steps)


def plan_fraction(steps: Sequence[str], networks: int | None = None) -> Fraction:
    """Return which combinations of steps to train.

    Args:
        steps: From 3 to 11 steps.
        networks: How many combinations; None takes as few as have resolution IV or better.

    Raises:
        UserError: If there is no such plan.
    """
    count = len(steps)
    if not LEAST_STEPS <= count <= MOST_STEPS or len(set(steps)) < count:
        found = f"was given '{' '.join(steps)}'" if steps else "was given none"
        raise UserError(
            f"--design fractional: takes {LEAST_STEPS} to {MOST_STEPS} different steps, but {found}. Name them, "
            "such as --design fractional gelu layer_norm fewer_norms."
        )
    sizes = GENERATORS[count]
    if networks is None:
        networks = min(size for size in sizes if (resolution_of(count, size) or count + 1) >= CLEAR)
    if networks not in sizes:
        known = ", ".join(f"{size} ({_name_of(count, size)})" for size in sizes)
        raise UserError(f"--samples: is {networks}, but {count} steps are planned in this many networks: {known}.")
    columns, base = _columns(count, networks), range(networks.bit_length() - 1)
    rows = [[bool(number >> place & 1) for place in base] for number in range(networks)]
    taken = [tuple(sum(not row[p] for p in base if column >> p & 1) % 2 == 0 for column in columns) for row in rows]
    return Fraction(tuple(steps), tuple(sorted(taken, key=lambda row: (sum(row), [not has for has in row]))))


def resolution_of(steps: int, networks: int) -> int | None:
    """Return the length of the shortest word that is the same in all networks of a plan; None where there is none."""
    columns = _columns(steps, networks)
    for length in range(1, steps + 1):
        for word in combinations(columns, length):
            product = 0
            for column in word:
                product ^= column
            if not product:
                return length
    return None


def _columns(steps: int, networks: int) -> list[int]:
    """Return of each step the first steps whose product it is, as bits."""
    base = networks.bit_length() - 1
    words = [*LETTERS[:base], *GENERATORS[steps][networks].split()]
    return [sum(1 << LETTERS.index(letter) for letter in word) for word in words]


def _name_of(steps: int, networks: int) -> str:
    resolution = resolution_of(steps, networks)
    return "all of them" if resolution is None else f"resolution {ROMAN[resolution]}"
