"""What the seeds of a ladder say of each step: it helps, it hurts, it has no effect, or they cannot say.

The rule shares what is known of the noise among all rungs (`_noise`), sums the distribution of each difference under
that noise and draws their joint distribution (`_contrasts`), and tests the steps one after the other so that a ladder
with any false answer, of whichever kind, has a probability of at most alpha. Why this rule and how well it keeps its
word: docs/verdicts-method.md and `python -m benchmarks.answers`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from analysis.stats._contrasts import Ints, contrast, step_down
from analysis.stats._noise import Floats, learn_noise
from analysis.stats.tests import equivalence_p, holm, two_sided_p, welch

ALPHA = 0.05
Test = Literal["shared", "welch"]
SHARED: Test = "shared"
TESTS = get_args(Test)
ROUNDING = 1e-12  # values that differ by less than this share are equal

Pairs = Sequence[tuple[str, str]]


class Answer(StrEnum):
    """What a ladder says of a step."""

    HELPS = "helps"
    HURTS = "hurts"
    NO_EFFECT = "no effect"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"


def judge(
    values: Mapping[str, ArrayLike],
    pairs: Pairs,
    *,
    better: int = 1,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    test: Test = SHARED,
) -> pd.DataFrame:
    """Judge the steps of a ladder from the values of every seed.

    All rungs in `values` help to learn the noise, those in no pair too. Values that are not finite are dropped.

    Args:
        values: Each rung's values, one a seed; any number of them.
        pairs: Steps to judge: a rung and the one it is compared with.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the unit of the values; one for all, or one a pair.
        alpha: Probability of any false answer in the whole ladder that is allowed.
        test: "shared" for the rule of this module; "welch" for Welch's test and Holm's correction, each kind of answer
            by itself.

    Returns:
        A row a pair; see `judge_summary`.

    Raises:
        ValueError: If a pair names an unknown rung or compares a rung with itself, or an option is out of range.
    """
    mean, std, n = summarize(values)
    return judge_summary(mean, std, n, pairs, better=better, margin=margin, alpha=alpha, test=test)


def judge_summary(
    mean: Mapping[str, float],
    std: Mapping[str, float],
    n: Mapping[str, int],
    pairs: Pairs,
    *,
    better: int = 1,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    test: Test = SHARED,
    step: float = 0.0,
) -> pd.DataFrame:
    """Judge the steps of a ladder from each rung's mean, standard deviation and number of seeds.

    Args:
        mean: Means; NaN where there is none.
        std: Standard deviations over seeds (n - 1 in the denominator); missing or NaN where there is none.
        n: Numbers of seeds.
        pairs: Steps to judge: a rung and the one it is compared with.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the unit of the means; one for all, or one a pair.
        alpha: Probability of any false answer in the whole ladder that is allowed.
        test: See `judge`.
        step: What means and deviations were rounded to, such as 0.01 for printed ones: a printed 0.02 may have been
            anything from 0.015 to 0.025, and a printed 0.00 anything below 0.005. 0 if they were not rounded.

    Returns:
        A row a pair, NaN for what is not known:
        `step`, `against` the rungs, `n`, `n_against` their seeds; `delta` the first mean less the second;
        `ci_low`, `ci_high` its (1 - alpha) interval, for this change alone; `p` of no change, for this change alone;
        `p_adjusted` the same for the whole ladder; `p_same` of a change outside the margin, for the whole ladder;
        `p_welch` Welch's, for this change alone; `noise`, `noise_against` the typical standard deviation over seeds
        that the rule takes each rung to have (with "welch": its own); `verdict` an `Answer`.

    Raises:
        ValueError: See `judge`.
    """
    if test not in TESTS:
        raise ValueError(f"test: 'shared' or 'welch', not {test!r}")
    asked = _Asked.of(mean, std, n, pairs, better=better, margin=margin, alpha=alpha, step=step)
    columns = {
        "step": [rung for rung, _ in pairs],
        "against": [rung for _, rung in pairs],
        "n": asked.n[asked.new].astype(int),
        "n_against": asked.n[asked.old].astype(int),
        "delta": asked.delta,
    }
    return pd.DataFrame(columns | (_by_welch(asked) if test == "welch" else _by_sharing(asked)))


def summarize(values: Mapping[str, ArrayLike]) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """Return means, standard deviations and numbers of each rung's finite values; 0 where all are equal."""
    mean, std, n = {}, {}, {}
    for rung, some in values.items():
        x = np.asarray(some, dtype=float).ravel()
        x = x[np.isfinite(x)]
        n[rung] = len(x)
        mean[rung] = float(x.mean()) if len(x) else float("nan")
        equal = len(x) > 0 and np.ptp(x) <= ROUNDING * np.abs(x).max()
        std[rung] = float("nan") if len(x) < 2 else 0.0 if equal else float(x.std(ddof=1))
    return mean, std, n


def check_pairs(rungs: Sequence[str], pairs: Pairs) -> tuple[Ints, Ints]:
    """Return the places of the pairs' rungs, the steps' and the others', shape (pairs,) each.

    Raises:
        ValueError: If a pair names an unknown rung or compares a rung with itself.
    """
    place = {rung: i for i, rung in enumerate(rungs)}
    wrong = [_unknown(rung, rungs) for pair in pairs for rung in pair if rung not in place]
    wrong += [
        f"pair ({step!r}, {against!r}): a rung cannot be compared with itself"
        for step, against in pairs
        if step == against
    ]
    if wrong:
        raise ValueError("; ".join(dict.fromkeys(wrong)))
    return (
        np.array([place[step] for step, _ in pairs], dtype=np.int64),
        np.array([place[against] for _, against in pairs], dtype=np.int64),
    )


def _unknown(rung: str, rungs: Sequence[str]) -> str:
    near = get_close_matches(str(rung), [str(known) for known in rungs], n=1)
    return f"unknown rung {rung!r}" + (
        f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(map(str, rungs))}"
    )


@dataclass(frozen=True)
class _Asked:
    """Checked arguments of `judge_summary` as arrays: of the rungs (mean, std, n) and of the pairs (the rest)."""

    mean: Floats
    std: Floats
    n: Floats
    new: Ints
    old: Ints
    margin: Floats
    better: int
    alpha: float
    step: float

    @classmethod
    def of(
        cls,
        mean: Mapping[str, float],
        std: Mapping[str, float],
        n: Mapping[str, int],
        pairs: Pairs,
        *,
        better: int = 1,
        margin: ArrayLike = 0.0,
        alpha: float = ALPHA,
        step: float = 0.0,
    ) -> "_Asked":
        margins = np.asarray(margin, dtype=float)
        if margins.shape not in ((), (len(pairs),)) or not np.all(margins >= 0):
            raise ValueError(f"margin: zero or more, one for all {len(pairs)} pairs or one for each; not {margins}")
        if better not in (1, -1):
            raise ValueError(f"better: 1 where more is better, -1 where less is; not {better}")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: a probability between 0 and 1, not {alpha}")
        if not 0 <= step < np.inf:
            raise ValueError(f"step: zero or more, not {step}")
        new, old = check_pairs(list(mean), pairs)
        means = np.array(list(mean.values()), dtype=float)
        counts = np.where(np.isfinite(means), [n.get(rung, 0) for rung in mean], 0).astype(float)
        stds = np.array([std.get(rung, np.nan) for rung in mean], dtype=float)
        stds[(counts < 2) | ~(stds >= 0) | np.isinf(stds)] = np.nan
        stds[stds <= ROUNDING * np.abs(means)] = 0.0
        means[counts < 1] = np.nan
        return cls(means, stds, counts, new, old, np.broadcast_to(margins, len(pairs)), better, alpha, step)

    @property
    def delta(self) -> Floats:
        difference: Floats = self.mean[self.new] - self.mean[self.old]
        return difference

    def welch(self) -> tuple[Floats, Floats]:
        variance = self.std**2
        return welch(variance[self.new], variance[self.old], self.n[self.new], self.n[self.old])

    def without_repeats(self, tested: Ints) -> tuple[Ints, Ints]:
        """Return the first of each pair among the tested ones, and for each tested one which of these it is."""
        rows = np.column_stack([self.new, self.old, self.margin])[tested]
        _, first, row = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        return tested[first], row.ravel()


@dataclass(frozen=True)
class _Turn:
    """What one of several looks at a ladder may say, of each pair: shape (pairs,).

    Attributes:
        told: Whether it was told from zero at an earlier look.
        open: Whether it has no answer yet.
        tested: Whether it is tested now; only open ones are.
        share: Its share of alpha now, or at its next test.
    """

    told: NDArray[np.bool_]
    open: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    share: Floats


def _by_sharing(asked: _Asked, turn: _Turn | None = None, *, brief: bool = False) -> dict[str, NDArray[Any]]:
    """Judge by shared noise; return the columns of `judge_summary` from `ci_low` on.

    Args:
        asked: What is judged.
        turn: Which look it is; None where there is only one.
        brief: Do not work out p-values above alpha, but leave them at 1; and nothing for pairs that have an answer.
    """
    columns = _empty(asked)
    tested = np.flatnonzero(np.isfinite(asked.delta) & (turn.open if brief and turn is not None else True))
    noise = learn_noise(asked.std, asked.n, asked.step)
    if noise is None or not len(tested):
        return columns
    once, row = asked.without_repeats(tested)
    delta, margin = asked.delta[once], asked.margin[once]
    contrasts = contrast(noise, np.maximum(asked.n, 1), asked.new[once], asked.old[once])
    turns = {} if turn is None else {"told": turn.told[once], "share": np.where(turn.tested, turn.share, 0.0)[once]}
    p, adjusted, same = step_down(contrasts, delta / noise.unit, margin / noise.unit, asked.alpha, brief=brief, **turns)
    log_share = None if turn is None else np.log(turn.share[once])
    half = contrasts.threshold(np.log(np.array(asked.alpha)), log_share) * noise.unit
    typical = noise.std()
    found = {
        "ci_low": delta - half,
        "ci_high": delta + half,
        "p": p,
        "p_adjusted": adjusted,
        "p_same": same,
        "noise": typical[asked.new[once]],
        "noise_against": typical[asked.old[once]],
        "verdict": _answers(delta, adjusted, same, asked),
    }
    for name, values in found.items():
        columns[name][tested] = values[row]
    return columns


def _by_welch(asked: _Asked) -> dict[str, NDArray[Any]]:
    """Judge by Welch's test; return the columns of `judge_summary` from `ci_low` on."""
    columns = _empty(asked)
    se, df = asked.welch()
    tested = np.isfinite(se) & np.isfinite(asked.delta)
    half = stdtrit(df, 1 - asked.alpha / 2) * se
    columns["ci_low"], columns["ci_high"] = asked.delta - half, asked.delta + half
    columns["p"] = columns["p_welch"]
    columns["p_adjusted"] = holm(columns["p_welch"])
    columns["p_same"] = holm(equivalence_p(asked.delta, se, df, asked.margin))
    columns["noise"], columns["noise_against"] = asked.std[asked.new], asked.std[asked.old]
    answers = _answers(asked.delta, columns["p_adjusted"], columns["p_same"], asked)
    columns["verdict"] = np.where(tested, answers, columns["verdict"])
    return columns


def _empty(asked: _Asked) -> dict[str, NDArray[Any]]:
    names = ("ci_low", "ci_high", "p", "p_adjusted", "p_same", "p_welch", "noise", "noise_against")
    columns: dict[str, NDArray[Any]] = {name: np.full(len(asked.new), np.nan) for name in names}
    columns["p_welch"] = two_sided_p(asked.delta, *asked.welch())
    columns["verdict"] = np.full(len(asked.new), Answer.NOT_TESTED, dtype=object)
    return columns


def _answers(delta: Floats, adjusted: Floats, same: Floats, asked: _Asked) -> NDArray[Any]:
    answers = np.full(len(delta), Answer.UNDECIDED, dtype=object)
    answers[same <= asked.alpha] = Answer.NO_EFFECT
    answers[(adjusted <= asked.alpha) & (asked.better * delta > 0)] = Answer.HELPS
    answers[(adjusted <= asked.alpha) & (asked.better * delta < 0)] = Answer.HURTS
    return answers
