"""Everything that a study's run folders say, read when it is first asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from analysis.comparison.agreement import agreement_with_paper, correlation_in_words, correlations
from analysis.design_effects import effects_beside, interaction_in_words
from analysis.evaluations.own_metrics import OwnMetrics, collect_own_metrics, runs_of
from analysis.evaluations.robustness import Robustness, collect_robustness
from analysis.fractions import effect_rows, fraction_costs, fraction_verdicts, missing_networks
from analysis.history import RunHistory, collect_histories, curves_of
from analysis.ladder_table import ladder_table, with_answers
from analysis.metrics import COSTS, METRICS, SPEEDS, TOP1, Evaluated, declared
from analysis.run_frames import collect, collect_measured, collect_right_images
from analysis.sentences import headline, more_runs
from analysis.stats.answers import SHARED, Test
from analysis.stats.shapley import shapley
from analysis.verdicts import (
    Pairs,
    RightImages,
    cost_table,
    pairs_of,
    published_verdicts,
    reference_pairs,
    sought_verdicts,
    speed_table,
    verdict_table,
    with_costs,
    without_answers,
)
from roadmap.ladder.fractions import Fraction
from roadmap.ladder.references import SECTION
from roadmap.ladder.rung import Rung
from roadmap.study.plan import Study

MEASURED = ["train_images_per_s", "test_images_per_s", "peak_memory_mb", "activations"]
ROUND_COLUMNS = ["step", "against", "n", "n_against", "delta", "ci_low", "ci_high", "answer"]
# What a rung's row says beside its result; nothing where results mean nothing.
CLAIMS = ["top1_delta", "paper_top1", "paper_top1_std", "paper_top1_delta"]


@dataclass(frozen=True, eq=False)
class StudyResults:
    """What a study's runs say. Each part is read or judged once, when it is first asked for.

    Frames of what is not there are empty. Whatever reads a result of another version raises a `UserError`.

    Attributes:
        study: The study.
        beside: Design -> the same steps from the same base under the same recipe, in other designs, whose effects stand
            beside this study's.
        margin: Changes of top-1 within it are as good as none; None takes the metric's own.
        test: The rule that gives the answers, as for `analysis.judge`.
        margin_of: The metric that the margin is of, if not top-1.
    """

    study: Study
    beside: Mapping[str, Study] = field(default_factory=dict)
    margin: float | None = None
    test: Test = SHARED
    margin_of: str = TOP1

    # -- as read

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a rung and seed (`run_frames.collect`)."""
        return collect(self.study)

    @cached_property
    def measured(self) -> pd.DataFrame:
        """A row a rung and round that was measured side by side (`run_frames.collect_measured`)."""
        return collect_measured(self.study)

    @cached_property
    def right_images(self) -> RightImages:
        """Which test images each finished run's network had right (`run_frames.collect_right_images`)."""
        return collect_right_images(self.study, self.runs)

    @cached_property
    def histories(self) -> Mapping[str, RunHistory]:
        """What each run left beside its result, by run."""
        return collect_histories(self.study)

    @cached_property
    def robustness(self) -> Robustness:
        """What was found of the networks' robustness."""
        return collect_robustness(self.study)

    @cached_property
    def own_metrics(self) -> OwnMetrics:
        """What functions of the user's own measured of the networks."""
        return collect_own_metrics(self.study)

    @cached_property
    def evaluated(self) -> tuple[Evaluated, ...]:
        """What was found of the trained networks after their runs."""
        return declared(self.robustness, self.own_metrics)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row a rung, seed and epoch, with the columns of `history.CURVE_COLUMNS`."""
        return curves_of(self.study, self.histories)

    # -- as judged

    @property
    def has_results(self) -> bool:
        """Whether any run finished."""
        return bool((self.runs["state"] == "finished").any())

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """A row a metric and change, with the columns of `verdicts.VERDICT_COLUMNS`, metric by metric.

        Steps are judged together, and references together: what is said of a step does not depend on what the ladder
        is held against. References come after steps.
        """
        families = [pairs for pairs in (pairs_of(self.study.rungs), reference_pairs(self.study.rungs)) if pairs]
        if self.means_nothing:
            families = []
        tables = [self.judge(pairs) for pairs in families]
        if self.fraction and not self.means_nothing:
            tables.insert(0, self._judge_fraction(self.fraction))
        tables = tables or [self.judge([])]
        together = pd.concat(tables) if len(tables) > 1 else tables[0]
        places = {name: place for place, name in enumerate(dict.fromkeys(together["metric"]))}
        return together.sort_values("metric", key=lambda found: found.map(places), kind="stable", ignore_index=True)

    @property
    def fraction(self) -> Fraction | None:
        """Which steps each network has, for the design "fractional"; None for any other, and for a part of one."""
        fraction = self.study.layout.fraction
        there = {rung.id for rung in self.study.rungs}
        return fraction if fraction and there.issuperset(fraction.rungs) else None

    def _judge_fraction(self, fraction: Fraction) -> pd.DataFrame:
        """Judge the effects of a factorial plan in every metric, each metric's effects together."""
        tables = [fraction_verdicts(self.runs, fraction, name, self._margin_of(name)) for name in METRICS]
        tables += [fraction_costs(self.costs, fraction, metric) for metric in COSTS]
        for found in self.evaluated:
            runs = found.frame.assign(state="finished")
            tables += [fraction_verdicts(runs, fraction, metric) for metric in found.metrics]
        return pd.concat(tables, ignore_index=True)

    def _margin_of(self, metric: str) -> float | None:
        """Return the margin that was asked for; None where the metric has its own."""
        return self.margin if metric == self.margin_of else None

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """Each step's change of top-1 at every look of a study in rounds; empty for a fixed number of seeds.

        A row a look and step: `look` (from 1), `runs` that all rungs had together then, and of
        `verdicts.VERDICT_COLUMNS` step, against, n, n_against, delta, ci_low, ci_high and answer.
        """
        study, tables = self.study, []
        there = {rung.id for rung in study.rungs}
        pairs = [pair for pair in pairs_of(study.rungs) if pair[0] in study.sought and pair[1] in there]
        for look, seeds in enumerate(study.looks, 1):
            judged = verdict_table(self.runs, pairs, margin=self._margin_of(TOP1), looks=study.looks[:look])
            tables.append(judged[ROUND_COLUMNS].assign(look=look, runs=sum(seeds.values())))
        if not tables or self.means_nothing or self.test != SHARED:
            return pd.DataFrame(columns=["look", "runs", *ROUND_COLUMNS])
        return pd.concat(tables, ignore_index=True)[["look", "runs", *ROUND_COLUMNS]]

    @property
    def top1(self) -> pd.DataFrame:
        """The rows of `verdicts` on top-1, with what each step costs (`verdicts.FACTOR_COLUMNS`)."""
        return with_costs(self.verdicts, self.measured)

    @property
    def rows(self) -> pd.DataFrame:
        """What is judged and what it is called, for figures: columns rung, label, section, adopted and others."""
        if self.fraction is None:
            return self.table
        references = self.table[self.table["section"] == SECTION]
        return pd.concat([effect_rows(self.fraction), references[["rung", "label", "section", "adopted"]]])

    @property
    def steps(self) -> pd.DataFrame:
        """The rows of `verdicts` on top-1 that are steps, without references."""
        top1 = self.verdicts[self.verdicts["metric"] == "top1"]
        references = {rung.id for rung in self.study.rungs if rung.is_reference}
        return top1[~top1["step"].isin(references)]

    @cached_property
    def published(self) -> pd.DataFrame:
        """The paper's own changes of top-1, judged by the same rule; nothing for another design than the ladder."""
        rungs: Sequence[Rung] = self.study.layout.rungs if self.study.design == "ladder" else ()
        known = {rung.id for rung in rungs if rung.paper.top1 is not None}
        pairs = [pair for pair in pairs_of(rungs) if known.issuperset(pair)]
        return published_verdicts(self.study.ladder, self.study.base, pairs=pairs, margin=self.margin, test=self.test)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a rung, with the columns of `ladder_table.LADDER_COLUMNS`; no change where results mean nothing."""
        table = ladder_table(self.runs, self.study.rungs)
        if self.means_nothing:
            return table.assign(**dict.fromkeys(CLAIMS, math.nan))
        return with_answers(table, self.verdicts[self.verdicts["metric"] == "top1"], self.published)

    @property
    def tradeoffs(self) -> pd.DataFrame:
        """The table with each rung's medians of what was measured (`roadmap.measuring.rung_costs.ROW`)."""
        return self.table.join(self.measured.groupby("rung")[MEASURED].median(), on="rung")

    @cached_property
    def design_effects(self) -> dict[str, pd.DataFrame]:
        """The steps' effects by each design that has results: name -> frame (`design_effects.design_effects`)."""
        return self.effects_on(TOP1)

    @cached_property
    def shapley(self) -> pd.DataFrame:
        """Shapley values with the columns of `shapley.SHAPLEY_COLUMNS`, for the design "orders"."""
        return self.shapley_of(TOP1)

    def runs_with(self, metric: str) -> pd.DataFrame:
        """Return a row a run with the columns rung, seed, state and a metric of runs, or one of the user's own."""
        return self.runs if metric in METRICS else runs_of(self.own_metrics, metric)

    def effects_on(self, metric: str) -> dict[str, pd.DataFrame]:
        """Return the steps' effects on a metric, the user's own too, by each design that has results."""
        return {} if self.means_nothing else effects_beside(self.study, self.beside, metric)

    def shapley_of(self, metric: str) -> pd.DataFrame:
        """Return Shapley values of a metric, the user's own too, for the design "orders"."""
        if self.study.design != "orders" or self.means_nothing:
            return pd.DataFrame()
        return shapley(self.runs_with(metric), self.study.layout.orders, metric)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Rank correlations with the paper's changes (`agreement.AGREEMENT_COLUMNS`); none of what means nothing."""
        if not self._compares:
            return pd.DataFrame()
        found = correlations(self.runs, self.study.rungs)
        return found[found["spearman"].notna()]

    # -- in words

    @property
    def means_nothing(self) -> bool:
        """Whether the recipe only shows that everything works, so that nothing is claimed."""
        return self.study.recipe.means_nothing

    @property
    def _compares(self) -> bool:
        return self.study.design == "ladder" and not self.means_nothing

    @cached_property
    def headline(self) -> str:
        """The sentence that every surface leads with: what is answered, and what would answer the rest."""
        if self.means_nothing:
            return (
                f"These numbers mean nothing: recipe '{self.study.recipe.name}' trains for a few steps, to show that "
                "everything works. Nothing is claimed of any step."
            )
        if self.fraction:
            return headline(self.steps, noun="effect")
        done = self.runs[self.runs["state"] == "finished"]
        more = more_runs(self.steps, {str(rung): float(s) for rung, s in done.groupby("rung")["wall_s"].mean().items()})
        return headline(self.steps, noun="step" if self.study.design == "ladder" else "change", more=more)

    @cached_property
    def sentences(self) -> list[str]:
        """What else is to be said in words, a paragraph each."""
        study, sentences = self.study, list(self.study.notes)
        if self.means_nothing:
            return sentences
        if looks := len(study.looks):
            sentences.append(
                f"Seeds came in {looks} round{'s' if looks > 1 else ''}, to the steps that were open: the answers on "
                "each metric allow for having been looked at after every one."
            )
        if self._compares:
            sentences.append(agreement_with_paper(self.table))
            sentences.append(correlation_in_words(self.correlations, proxy=study.recipe.is_proxy))
        elif study.design == "orders" and (self.shapley["n_orders"] < len(study.layout.orders)).any():
            sentences.append(
                "Not all drawn orders are trained: a value that fewer of them count for is not of random orders, and "
                "its interval says less than it seems to."
            )
        elif study.design == "fractional":
            sentences += self._about_the_fraction()
        elif study.design == "pairs":
            for metric in (TOP1, *self.own_metrics.metrics):
                runs = self.runs_with(metric)
                sentences.append(interaction_in_words(runs, study.layout.square, study.layout.design.steps, metric))
        return sentences + [note for found in self.evaluated for note in found.notes]

    def _about_the_fraction(self) -> list[str]:
        """Say why effects are not judged, if they are not."""
        if self.fraction is None:
            return ["Effects are judged of the whole design alone: --only and --until leave networks of it out."]
        if missing := missing_networks(self.runs, self.fraction):
            total = len(self.fraction.rungs)
            return [f"{missing} of {total} networks have no result yet: effects are judged when all have one."]
        return []

    # -- for any changes

    def judge(self, pairs: Pairs, costs: pd.DataFrame | None = None) -> pd.DataFrame:
        """Judge changes in every metric, each metric's changes together.

        Args:
            pairs: (rung, the one it is judged against).
            costs: What is counted of each rung, in the shape of `costs`; None takes what the runs say.

        Returns:
            The rows of all metrics, one metric after the other, with the columns of `verdicts.VERDICT_COLUMNS`.
        """
        references = {rung.id for rung in self.study.rungs if rung.is_reference}
        apart = references.difference(*pairs)  # a step's answer does not depend on their noise
        runs = self.runs[~self.runs["rung"].isin(apart)]
        tables = [self._judge_runs(runs, pairs, metric) for metric in METRICS]
        later = [
            self._judge_runs(found.frame.assign(state="finished"), pairs, metric)
            for found in self.evaluated
            for metric in found.metrics
        ]
        if self.means_nothing:
            tables, later = [list(map(without_answers, some)) for some in (tables, later)]
        tables += [speed_table(self.measured, pairs, metric) for metric in SPEEDS]
        tables += [cost_table(self.costs if costs is None else costs, pairs, metric) for metric in COSTS]
        return pd.concat([*tables, *later], ignore_index=True)

    def _judge_runs(self, runs: pd.DataFrame, pairs: Pairs, metric: str) -> pd.DataFrame:
        """Judge changes in a metric of runs."""
        looks, steps = self.own_metrics.looks_of(metric, self.study), pairs_of(self.study.rungs)
        return sought_verdicts(
            runs,
            pairs,
            metric,
            {step for step, against in pairs if step in looks.sought or (step, against) not in steps},
            margin=self._margin_of(metric),
            right_images=self.right_images,
            test=self.test,
            looks=looks.seeds,
        )

    @cached_property
    def costs(self) -> pd.DataFrame:
        """What is counted of each rung, by rung: the columns of `metrics.COSTS`."""
        costs = self.runs.groupby("rung")[["macs", "params"]].first()
        return costs.join(self.measured.groupby("rung")[["activations", "peak_memory_mb"]].first())
