"""One step against another rung: what differs, what it costs, what it changed in every metric, and how sure that is."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.metrics import METRICS
from analysis.study_results import StudyResults
from analysis.verdicts import pairs_of, reference_pairs, to_json
from roadmap.common.errors import UserError
from roadmap.ladder.rung import Rung
from roadmap.networks.config import NetConfig

USUAL = "its own"  # what an argument is that was not given


@dataclass(frozen=True)
class Comparison:
    """A rung beside the one it is judged against.

    Attributes:
        base: Where the ladder starts.
        step: The rung.
        against: The other.
        fields: The network's and the recipe's fields that differ: name -> (against, step).
        verdicts: A row a metric, with the columns of `analysis.verdicts.VERDICT_COLUMNS`.
        runs: The rows of both in the frame of `analysis.run_frames`.
        paper: The paper's top-1 of both, percent: (against, step).
        family: How many changes were judged together with this one.
        caveat: That the numbers mean nothing, where they do not; then there are no answers, nor the paper's numbers.
    """

    base: str
    step: str
    against: str
    fields: dict[str, tuple[Any, Any]]
    verdicts: pd.DataFrame
    runs: pd.DataFrame
    paper: tuple[float | None, float | None]
    family: int
    caveat: str = ""

    def changes(self, metric: str) -> dict[str, float]:
        """Return a run metric's change for each seed that both rungs have, by seed."""
        done = self.runs[self.runs["state"] == "finished"]
        old, new = (
            done[done["rung"] == rung].set_index("seed")[metric].astype(float) for rung in (self.against, self.step)
        )
        return {str(seed): change for seed, change in (new - old).dropna().sort_index().items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return JSON-able rows, one a metric."""
        return [
            {"base": self.base}
            | row
            | ({"change_by_seed": self.changes(name)} if (name := row["metric"]) in METRICS else {})
            for row in to_json(self.verdicts)
        ]


def compare_step(results: StudyResults, step: str, against: str | None = None) -> Comparison:
    """Compare a rung of a study with another, or with the one it comes from.

    A rung and the one it comes from are judged together with all other steps of the study, as a report does; any other
    pair is judged alone.

    Raises:
        UserError: If the rung is the ladder's start and no other was named.
    """
    study = results.study
    rungs = {rung.id: rung for rung in study.rungs}
    against = against or rungs[step].parent
    if against is None:
        if study.design == "fractional":
            raise UserError(
                f"'{step}' is one of the networks of a plan, which are judged together: 'compare' without --step shows "
                "the effects. To hold it against another network, name that with --against."
            )
        start = "the ladder starts" if study.design == "ladder" else f"the design {study.design} starts"
        raise UserError(f"'{step}' is where {start}: there is no rung before it. Name one with --against.")
    if step == against:
        raise UserError(f"'{step}' is to be compared with itself. Name another rung with --against.")
    new, old = rungs[step], rungs[against]
    planned = {rung: run for run in study.planned() for rung in run.rungs}
    pair = (planned[against], planned[step])
    recipes = [run.config.recipe.training() for run in pair]
    fields = _network_fields(old, new)
    fields |= {f"recipe: {k}": (recipes[0][k], recipes[1][k]) for k in recipes[0] if recipes[0][k] != recipes[1][k]}
    pairs = reference_pairs(study.rungs) if new.is_reference else pairs_of(study.rungs)
    if (step, against) not in pairs:
        pairs = [(step, against)]
    counted = results.costs.copy()
    for run in pair:  # counted now: nothing may have run yet
        for rung in run.rungs:
            counted.loc[rung, ["macs", "params"]] = [run.macs, run.params]
    judged = results.judge(pairs, counted)
    rows = judged[(judged["step"] == step) & (judged["against"] == against)].reset_index(drop=True)
    runs = results.runs[results.runs["rung"].isin([step, against])]
    paper, caveat = (old.paper.top1, new.paper.top1), ""
    if results.means_nothing:
        paper, caveat = (None, None), results.headline
    return Comparison(study.base, step, against, fields, rows, runs, paper, len(pairs), caveat)


def _network_fields(old: Rung, new: Rung) -> dict[str, tuple[Any, Any]]:
    """Return what differs in the networks: what they are made of, or, where they are of two kinds, which they are."""
    if type(old.net) is not type(new.net):
        titles = [rung.label if isinstance(rung.net, NetConfig) else rung.net.title for rung in (old, new)]
        return {"network": (titles[0], titles[1])}
    before, after = old.net.describe(), new.net.describe()
    names = dict.fromkeys([*before, *after])
    return {
        f"network: {name}": (before.get(name, USUAL), after.get(name, USUAL))
        for name in names
        if before.get(name, USUAL) != after.get(name, USUAL)
    }
