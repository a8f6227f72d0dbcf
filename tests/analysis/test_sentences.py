from typing import Any

import pandas as pd
import pytest

from analysis.sentences import MOST_NAMES, MoreRuns, headline, marked, metric_headline, more_runs
from analysis.stats.answers import Answer

HELPS, HURTS, NONE, OPEN, UNTESTED = Answer


def changes(*answers: Answer, n: int = 6, metric: str = "top1", **columns: Any) -> pd.DataFrame:
    """Return changes with these answers, each held against the one before: a, b, c ..."""
    steps = [chr(ord("a") + i) for i in range(len(answers))]
    frame = pd.DataFrame({"step": steps, "against": ["start", *steps][: len(steps)], "answer": answers})
    frame = frame.assign(metric=metric, n=n, n_against=n, margin=0.2, seeds_needed=float("inf"), verdict="")
    return frame.assign(**columns)


def test_the_sentence_counts_names_and_says_what_would_answer_the_rest() -> None:
    found = changes(HELPS, HELPS, HURTS, NONE, OPEN, OPEN)
    assert headline(found, more=MoreRuns(("e",), 40, 360.0)) == (
        "4 of 6 steps are answered at 6 seeds: 2 help (a, b), 1 hurts (c), 1 has no effect within 0.2 points (d); "
        "about 40 more runs (6 min, one at a time) would answer 1 of the 2 that are undecided."
    )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((OPEN, OPEN), "None of the 2 steps is answered at 6 seeds."),
        ((HELPS, NONE), "All 2 steps are answered at 6 seeds: 1 helps (a), 1 has no effect within 0.2 points (b)."),
        ((HELPS, OPEN, OPEN), "1 of 3 steps is answered at 6 seeds: 1 helps (a)."),
        ((NONE, NONE, HURTS, HURTS), "All 4 steps are answered at 6 seeds: 2 hurt (c, d), 2 have no effect"),
        ((), "There is no step to judge: no rung here has one before it."),
    ],
    ids=["none", "all", "one", "no effect", "nothing"],
)
def test_the_sentence_is_honest_whatever_is_answered(answers: tuple[Answer, ...], said: str) -> None:
    assert headline(changes(*answers)).startswith(said)


def test_steps_without_results_are_counted_and_not_called_undecided() -> None:
    found = changes(HELPS, UNTESTED, UNTESTED, n_against=[6, 6, 0], n=[6, 0, 0])
    assert headline(found) == (
        "1 of 3 steps is answered at 6 seeds: 1 helps (a). 2 are not tested (b, c): results are missing."
    )
    assert headline(changes(UNTESTED, UNTESTED, n=0)) == (
        "None of the 2 steps is answered. All are not tested (a, b): results are missing."
    )
    assert headline(changes(UNTESTED, UNTESTED, n=1)).endswith("(a, b): two seeds or more are needed.")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HELPS, "a helps at 6 seeds."),
        (HURTS, "a hurts at 6 seeds."),
        (NONE, "a has no effect within 0.2 points at 6 seeds."),
        (OPEN, "a is undecided at 6 seeds; about 8 more runs would answer it."),
    ],
)
def test_a_step_that_is_alone_has_a_sentence_of_its_own(answer: Answer, said: str) -> None:
    assert headline(changes(answer), more=MoreRuns(("a",), 8, None)) == said


def test_many_names_are_cut_and_other_designs_have_changes() -> None:
    assert "and 3 more)" in headline(changes(*[HELPS] * (MOST_NAMES + 2)))
    assert headline(changes(HELPS, HURTS), noun="change").startswith("All 2 changes are answered")
    assert "at 3 to 6 seeds" in headline(changes(HELPS, HURTS, n=[3, 6]))
    assert "within 0.2 nats" in headline(changes(NONE, HELPS, metric="nll"))


def test_more_runs_are_counted_once_for_steps_that_share_a_rung() -> None:
    found = changes(OPEN, OPEN, HELPS, OPEN, n=3, seeds_needed=[5.0, 8.0, 2.0, 900.0])
    more = more_runs(found, {"start": 10.0, "a": 20.0, "b": 30.0})
    assert more == MoreRuns(("a", "b"), runs=2 + 5 + 5, seconds=20.0 + 100.0 + 150.0)
    assert more_runs(found, {"start": 10.0, "a": float("nan")}) == MoreRuns(("a", "b"), 12, None)


def test_what_many_seeds_would_answer_is_not_suggested() -> None:
    assert more_runs(changes(OPEN, OPEN, n=3, seeds_needed=[float("inf"), float("nan")])) is None
    assert more_runs(changes(HELPS)) is None
    enough = more_runs(changes(OPEN, n=3, seeds_needed=2.0))  # undecided all the same: one more seed at least
    assert enough is not None
    assert enough.runs == 2


def test_other_metrics_are_counted_in_a_few_words() -> None:
    assert metric_headline(changes(HELPS, OPEN, metric="nll")) == "NLL (nats): 1 of 2 answered"
    assert metric_headline(changes(HELPS, metric="macs").assign(answer="")) == ""


def test_every_answer_has_a_mark_and_a_word() -> None:
    assert len({marked(answer) for answer in Answer}) == len(Answer)
    assert marked(HELPS) == "▲ helps"
    assert marked("") == ""
