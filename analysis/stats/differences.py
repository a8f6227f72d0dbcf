"""Whether a step is worth the same in two studies: the difference of its two effects, with an interval and an answer.

The effect of a step is the mean of its rung less that of the rung before. Its difference is the effect here less the
effect there, of four rungs. The rule is that of `analysis.stats.answers`: each study learns its noise from its own
rungs, the distribution of each difference is summed, and all differences are tested together, so that a comparison with
any false answer has a probability of at most alpha. A run that both studies have cancels.
How well it keeps its word: docs/verdicts-method.md and `python -m benchmarks.differences`.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.stats._contrasts import step_down
from analysis.stats._noise import Floats, learn_noise
from analysis.stats._shared_runs import Summary, group_runs
from analysis.stats._study_contrasts import Asked, Other, Study, study_contrasts
from analysis.stats.answers import ALPHA, SHARED, TESTS, Pairs, Test
from analysis.stats.tests import equivalence_p, holm, two_sided_p

__all__ = ["DECIDED", "Other", "Summary", "Worth", "compare_effects", "compare_studies"]


class Worth(StrEnum):
    """What two studies say of a step together: in which of them it is worth more."""

    MORE_HERE = "more here"
    MORE_THERE = "more there"
    SAME = "the same"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"


DECIDED = (Worth.MORE_HERE, Worth.MORE_THERE, Worth.SAME)


def compare_effects(
    here: Study,
    there: Study,
    pairs: Pairs,
    pairs_there: Pairs | None = None,
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = ALPHA,
    test: Test = SHARED,
) -> pd.DataFrame:
    """Judge of each step whether it is worth the same in two studies, such as two recipes, data sets or bases.

    Args:
        here: A study: each rung's values, in an array whose runs are its own alone, or as a mapping from the names of
            runs. A name that both studies have is the same run, which cancels. All rungs help to learn the noise. Or a
            `Summary` of what is published.
        there: The other study.
        pairs: The steps: a rung and the one it is compared with.
        pairs_there: The same steps as the other study has them, in the same order; None if they are the same.
        better: 1 where more is better, -1 where less is.
        margin: Differences within it are as good as none, in the unit of the values.
        alpha: Probability of any false answer in the whole comparison that is allowed.
        test: "shared" for the rule of `analysis.judge`, each study with its own noise; "welch" for Welch's test of four
            rungs and Holm's correction, each kind of answer by itself.

    Returns:
        A row a step, NaN for what is not known:
        `step`, `against` the rungs here, `step_there`, `against_there` those there; `n`, `n_there` the fewer of the two
        rungs' runs; `effect`, `effect_there` the step's change of the mean; `difference` the first less the second;
        `ci_low`, `ci_high` its (1 - alpha) interval, for this difference alone; `p` of no difference, for this one
        alone; `p_adjusted` the same for all together; `p_same` of a difference outside the margin, for all together;
        `p_welch` Welch's, for this one alone; `same_runs`, whether the two effects are of the same runs, so that there
        is nothing to test; `verdict`, a `Worth`: a step is worth more where its effect is better.

    Raises:
        ValueError: If a pair names an unknown rung or compares a rung with itself, the two lists of pairs differ in
            length, a run has two values, or an option is out of range.

    Source: the difference of two effects is the interaction of a step and a study; its variance with unequal noise
        is Welch's 1947, over four groups.
    """
    other = Other(there, pairs, pairs if pairs_there is None else pairs_there)
    (table,) = compare_studies(here, [other], better=better, margin=margin, alpha=alpha, test=test)
    return table


def compare_studies(
    here: Study,
    others: Sequence[Other],
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = ALPHA,
    test: Test = SHARED,
) -> list[pd.DataFrame]:
    """Judge a study against several others, all differences together.

    Args:
        here: The study, as for `compare_effects`.
        others: What it is compared with.
        better: As for `compare_effects`.
        margin: Likewise.
        alpha: Probability of any false answer in all comparisons together that is allowed.
        test: As for `compare_effects`.

    Returns:
        The table of `compare_effects` for each of the others.

    Raises:
        ValueError: As for `compare_effects`.
    """
    _check(others, better, margin, alpha, test)
    groups = group_runs([here, *(other.study for other in others)])
    asked = Asked.of(groups, others)
    found = (_by_welch if test == "welch" else _by_sharing)(asked, margin, alpha)
    worth = {Worth.MORE_HERE: better, Worth.MORE_THERE: -better}
    verdict = np.full(len(asked.places), Worth.NOT_TESTED, dtype=object)
    verdict[np.isfinite(found["p_adjusted"])] = Worth.UNDECIDED
    verdict[found["p_same"] <= alpha] = Worth.SAME
    for answer, sign in worth.items():
        verdict[(found["p_adjusted"] <= alpha) & (sign * asked.difference > 0)] = answer
    table = pd.DataFrame(asked.columns() | found | {"same_runs": asked.cancels, "verdict": verdict})
    names = [(*pair, *theirs) for other in others for pair, theirs in zip(other.pairs, other.pairs_there, strict=True)]
    rungs = pd.DataFrame(names, columns=["step", "against", "step_there", "against_there"], dtype=object)
    table = pd.concat([rungs, table], axis=1)
    return [table[asked.other == place].reset_index(drop=True) for place in range(1, len(others) + 1)]


def _check(others: Sequence[Other], better: int, margin: float, alpha: float, test: str) -> None:
    if better not in (1, -1):
        raise ValueError(f"better: 1 where more is better, -1 where less is; not {better}")
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin: zero or more, not {margin}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: a probability between 0 and 1, not {alpha}")
    if test not in TESTS:
        raise ValueError(f"test: 'shared' or 'welch', not {test!r}")
    for other in others:
        if len(other.pairs) != len(other.pairs_there):
            raise ValueError(f"{len(other.pairs)} pairs here and {len(other.pairs_there)} there; give each its own")


def _empty(asked: Asked) -> dict[str, Floats]:
    columns = {name: np.full(len(asked.places), np.nan) for name in ("ci_low", "ci_high", "p", "p_adjusted", "p_same")}
    return columns | {"p_welch": two_sided_p(asked.difference, *asked.welch())}


def _by_welch(asked: Asked, margin: float, alpha: float) -> dict[str, Floats]:
    """Judge by Welch's test; return the columns of `compare_effects` from `ci_low` to `p_welch`."""
    se, df = asked.welch()
    half = stdtrit(df, 1 - alpha / 2) * se
    columns = _empty(asked)
    p, same = columns["p_welch"], equivalence_p(asked.difference, se, df, np.array(margin))
    ends = {"ci_low": asked.difference - half, "ci_high": asked.difference + half}
    return columns | ends | {"p": p, "p_adjusted": holm(p), "p_same": holm(same)}


def _by_sharing(asked: Asked, margin: float, alpha: float) -> dict[str, Floats]:
    """Judge by the noise that the rungs of each study share; return the columns as `_by_welch` does."""
    columns, groups = _empty(asked), asked.groups
    noises = []
    for study, step in enumerate(groups.rounding):
        own = groups.of(study)
        noises.append(learn_noise(groups.std[own], groups.df[own] + 1, float(step)))
    known = np.array([noise is not None for noise in noises])
    tested = np.flatnonzero(np.isfinite(asked.difference) & ~asked.cancels & known[0] & known[asked.other])
    if not len(tested):
        return columns
    unit = next(noise.unit for noise in noises if noise is not None)
    contrasts = study_contrasts(asked, noises, tested, unit)
    difference = asked.difference[tested]
    margins = np.full(len(tested), margin / unit)
    p, adjusted, same = step_down(contrasts, difference / unit, margins, alpha)
    half = contrasts.threshold(np.log(np.array(alpha))) * unit
    found = {"ci_low": difference - half, "ci_high": difference + half, "p": p, "p_adjusted": adjusted, "p_same": same}
    for name, values in found.items():
        columns[name][tested] = values
    return columns
