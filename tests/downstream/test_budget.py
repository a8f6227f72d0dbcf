"""Segmenters in rounds: seeds where steps are open in mean IoU, answers that pay for the looks at it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.evaluations.own_metrics import collect_own_metrics
from analysis.metrics import metric_of
from analysis.report.contents import write_contents
from analysis.report.record import read_record
from analysis.report.record_results import RecordResults
from analysis.report.write import contents_of
from analysis.stats.allocation import Stop, next_seeds
from analysis.study_results import StudyResults
from analysis.verdicts import pairs_of, verdict_table
from roadmap import train as train_run
from roadmap.cli import downstream_commands
from roadmap.cli.main import main
from roadmap.common import files
from roadmap.downstream.task import DownstreamTask, plan_task
from roadmap.runs import run_folder
from roadmap.runs.metrics import FAILED, OWN_METRICS_VERSION, path_of
from roadmap.study.plan import PlannedRun, Study
from roadmap.study.rounds import folder_of, read_rounds
from roadmap.study.spec import StudySpec, plan_study
from tests.downstream.samples import write_tiny_task
from tests.samples import LADDER

RUNGS = ("start", "widen", "big_kernel")  # of `LADDER`
MIOU = {"start": 30.0, "widen": 31.0, "big_kernel": 45.0}


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A recipe of segmentation that takes a moment."""
    return write_tiny_task(tmp_path)


@pytest.fixture
def plan(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Callable[..., Study]:
    """Return what plans a part of the ladder."""
    recipe, ladder = write_recipes(epochs=1), tmp_path / "ladder.yaml"
    ladder.write_text(LADDER)

    @cache
    def start(rungs: Sequence[str] = RUNGS, seeds: Sequence[int] = range(3)) -> Study:
        runs = tmp_path / "runs"
        return plan_study(
            StudySpec("resnet50", recipe, ladder, only=rungs, seeds=seeds, data_root=small_images, runs=runs)
        )

    return start


def classify(study: Study, state: str = "finished") -> None:
    """Leave the results of classifiers."""
    for run in study.planned():
        row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": state, "wall_s": 1.0}
        files.write_json(run.folder / run_folder.RESULT, row | {"top1": 70.0 + run.config.seed % 3})


class Segmenters:
    """Stands for the jobs: leaves what a task finds, which is a function of rung and seed.

    Attributes:
        trained: What was, in order.
        stop_after: So many networks are trained before Ctrl-C; None for no end.
        failing: Those that fail.
        meanwhile: What happens, once, before the first is trained.
    """

    def __init__(self) -> None:
        self.trained = list[str]()
        self.stop_after: int | None = None
        self.failing = set[str]()
        self.meanwhile: Callable[[], object] = lambda: None

    def work(self, task: DownstreamTask, runs: Sequence[PlannedRun], *others: object) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        for run in runs:
            name = f"{run.rungs[0]} {run.config.seed}"
            if task.networks.is_done(run.folder) or not run_folder.is_finished(run.folder):
                continue
            if self.stop_after == len(self.trained):
                raise KeyboardInterrupt
            self.trained.append(name)
            if name in self.failing:
                files.write_json(task.place(run.folder) / FAILED, {"error": "no room"})
            else:
                measure(task, run)
        return True

    def seeds(self) -> dict[str, int]:
        return {rung: sum(name.split()[0] == rung for name in self.trained) for rung in RUNGS}


def measure(task: DownstreamTask, run: PlannedRun) -> None:
    """Leave what a task found on a run."""
    rng = np.random.default_rng([run.config.seed, *run.rungs[0].encode()])
    content = {
        "own_metrics_version": OWN_METRICS_VERSION,
        "function": task.name,
        "file": "segmentation.yaml",
        "command": "downstream --task segmentation",
        "fingerprint": task.fingerprint,
        "weights_fingerprint": "",
        "metrics": {name: asdict(about) for name, about in task.metrics.items()},
        "values": {"miou": MIOU[run.rungs[0]] + 0.35 * rng.normal(), "pixel_accuracy": 80.0 + rng.normal()},
        "details": {"wall_s": 3600.0},
        "at": 0.0,
    }
    files.write_json(path_of(run.folder, task.name, task.fingerprint), content)
    (task.place(run.folder) / FAILED).unlink(missing_ok=True)


@pytest.fixture
def segmenters(monkeypatch: pytest.MonkeyPatch) -> Segmenters:
    """Have no job started."""
    made_up = Segmenters()
    monkeypatch.setattr(downstream_commands, "work_on_networks", made_up.work)
    return made_up


@pytest.fixture
def downstream(plan: Callable[..., Study], task_file: Path, small_images: Path) -> Callable[..., int]:
    """Return a command line about segmenters on the ladder."""

    def start(*words: str, only: Sequence[str] = RUNGS) -> int:
        study = plan()
        recipe = task_file.parent / "recipes" / "tiny.yaml"
        about = ["--base", "resnet50", "--steps", str(task_file.parent / "ladder.yaml"), "--only", *only]
        about += ["--recipe", str(recipe), "--data", str(small_images)]
        return main(["downstream", *words, *about, "--task", str(task_file), "--runs", str(study.runs)])

    return start


def miou_of(study: Study, **options: Any) -> pd.DataFrame:
    verdicts = StudyResults(study, **options).verdicts
    return verdicts[verdicts["metric"] == "miou"].set_index("step")


def test_seeds_go_to_open_steps_until_there_are_no_more_classifiers(
    downstream: Callable[..., int],
    segmenters: Segmenters,
    plan: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
) -> None:
    classify(plan(seeds=range(5)))
    assert downstream("--budget", "60runs") == 0
    said = " ".join(capsys.readouterr().out.split())
    seeds = segmenters.seeds()
    assert len(segmenters.trained) == len(set(segmenters.trained))
    assert "Round 1: 3 more seeds of every rung." in said
    assert "Round 2: 2 more seeds of start, widen." in said
    assert seeds == {"start": 5, "widen": 5, "big_kernel": 3}
    assert "1 of 2 steps is answered, and the others need more seeds than there are classifiers. 2 rounds, 13" in said
    assert "'run --seeds 0 1 2 3 4 5 6 7 8 9' trains more" in said
    assert "seeds came in 2 rounds of the task's own" in said
    classify(plan(seeds=range(8)))
    assert downstream("--budget", "60runs") == 0  # goes on with those
    assert segmenters.seeds() == {"start": 8, "widen": 8, "big_kernel": 3}
    before = list(segmenters.trained)
    assert downstream("--budget", "60runs") == 0
    assert segmenters.trained == before


def test_answers_pay_for_the_looks_whichever_seeds_are_named_and_top1_stays_as_it_was(
    downstream: Callable[..., int], segmenters: Segmenters, plan: Callable[..., Study], tmp_path: Path
) -> None:
    study = plan(seeds=range(5))
    classify(study)
    top1 = StudyResults(study).steps
    downstream("--budget", "60runs")
    pd.testing.assert_frame_equal(StudyResults(study).steps, top1)
    assert not read_rounds(study).seeds
    judged = miou_of(study)
    frame, pairs = collect_own_metrics(study).frame.assign(state="finished"), pairs_of(study.rungs)
    fixed = verdict_table(frame, pairs, "miou").set_index("step")
    assert judged.loc["widen", "n"] == 5
    assert judged.loc["widen", "delta"] == pytest.approx(fixed.loc["widen", "delta"])
    width = [table.loc["widen", "ci_high"] - table.loc["widen", "ci_low"] for table in (judged, fixed)]
    assert width[0] > width[1]
    for seeds in ((0, 1, 2), (1, 2), range(5)):  # nobody knows which of these were named before anything was seen
        pd.testing.assert_frame_equal(miou_of(plan(seeds=seeds)), judged)
    task = segmenters_task(plan, tmp_path)
    for run in plan(seeds=range(9)).planned():  # seeds that no round gave
        measure(task, run)
    pd.testing.assert_frame_equal(miou_of(study), judged)
    write_contents(replace(contents_of(StudyResults(study)), drawings=[]), tmp_path / "out")
    again = pd.concat(RecordResults(read_record(tmp_path / "out")).verdicts)
    recorded = again[again["metric"] == "miou"].set_index("step")
    assert list(recorded["answer"]) == list(judged["answer"])
    assert list(recorded["ci_low"].dropna()) == pytest.approx(list(judged["ci_low"].dropna()))


def segmenters_task(plan: Callable[..., Study], folder: Path) -> DownstreamTask:
    return plan_task(str(folder / "segmentation.yaml"), plan().planned())


def test_after_ctrl_c_the_same_command_goes_on_and_nothing_is_judged_before_a_look(
    downstream: Callable[..., int],
    segmenters: Segmenters,
    plan: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = plan()
    classify(study)
    segmenters.stop_after, segmenters.failing = 7, {"widen 1"}
    assert downstream("--budget", "12runs") == 130
    assert len(segmenters.trained) == 7
    assert set(miou_of(study)["answer"]) <= {"", "not tested"}
    assert any("the first round of seeds is not over" in note for note in collect_own_metrics(study).notes)
    segmenters.stop_after = None
    assert downstream("--budget", "12runs") == 1  # one failed again
    assert miou_of(study).loc["widen", "n"] == 2
    segmenters.failing.clear()
    assert downstream("--budget", "12runs") == 0
    assert miou_of(study).loc["widen", "n"] == 3
    assert "Round 2" not in capsys.readouterr().out


def test_two_commands_at_once_share_the_rounds_and_the_budget(
    downstream: Callable[..., int], segmenters: Segmenters, plan: Callable[..., Study]
) -> None:
    study = plan(RUNGS[:2], seeds=range(8))
    classify(study)
    segmenters.meanwhile = lambda: downstream("--until-answered", only=RUNGS[:2])
    assert downstream("--until-answered", only=RUNGS[:2]) == 0
    assert len(segmenters.trained) == len(set(segmenters.trained))
    assert len(list(study.runs.glob("studies/*/*"))) == 3


def test_a_ladder_pays_for_the_looks_at_a_part_of_it(
    downstream: Callable[..., int], segmenters: Segmenters, plan: Callable[..., Study], tmp_path: Path
) -> None:
    whole, part = plan(seeds=range(8)), plan(RUNGS[:2], seeds=range(8))
    classify(whole)
    task = segmenters_task(plan, tmp_path)
    for run in plan(RUNGS[2:]).planned():
        measure(task, run)
    assert downstream("--budget", "16runs", only=RUNGS[:2]) == 0
    looks = collect_own_metrics(whole).looks["miou"].seeds
    assert [look["start"] for look in looks] == [3, 6, 8]
    assert {look["big_kernel"] for look in looks} == {3}
    assert miou_of(whole).loc["big_kernel", "answer"] == "helps"
    last = plan(RUNGS[2:])
    for n in (2, 3):
        assert read_rounds(last, task.networks).begin(last, {"big_kernel": n}, [])
    looks = collect_own_metrics(whole).looks["miou"].seeds
    assert [tuple(look.values()) for look in looks] == [(3, 3, 2), (6, 6, 3), (8, 8, 3)]
    assert folder_of(part, task.networks) != folder_of(part)
    other = replace(task, from_scratch=True)
    assert not read_rounds(part, other.networks).seeds


def test_a_budget_in_hours_counts_as_the_networks_done_took(
    downstream: Callable[..., int],
    segmenters: Segmenters,
    plan: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    classify(plan())
    assert downstream("--budget", "100gpuh") == 2
    assert "how long the task takes is known once it is done on a network" in capsys.readouterr().err
    task, runs = segmenters_task(plan, tmp_path), plan().planned()
    measure(task, runs[0])
    assert downstream("--budget", "12gpuh") == 1  # the other rungs have more multiply-adds
    assert "does not pay for two seeds" in capsys.readouterr().out
    for run in runs[1:3]:
        measure(task, run)
    assert downstream("--budget", "12gpuh") == 0
    assert segmenters.seeds() == dict.fromkeys(RUNGS, 2)


def test_a_rung_without_two_classifiers_gets_nothing_and_neither_does_what_stands_alone_beside_it(
    downstream: Callable[..., int],
    segmenters: Segmenters,
    plan: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
) -> None:
    classify(plan(RUNGS[:1]))
    classify(plan(RUNGS[1:], seeds=(0,)))
    assert downstream("--until-answered") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "No step has two classifiers of both of its rungs" in said
    assert "'run --seeds 0 1 2 3 4 5' trains more" in said
    classify(plan(RUNGS[1:2]))
    assert downstream("--until-answered", "--margin", "100") == 0
    assert segmenters.seeds() == {"start": 3, "widen": 3, "big_kernel": 0}
    assert "1 of 2 steps is answered, and the others need more seeds" in " ".join(capsys.readouterr().out.split())


def test_no_rung_gets_more_than_it_can_have() -> None:
    rng, rungs = np.random.default_rng(0), ("a", "b", "c")
    values = {rung: 70 + 0.2 * place + rng.normal(size=3) for place, rung in enumerate(rungs)}
    costs, pairs, look = dict.fromkeys(rungs, 1.0), [("b", "a"), ("c", "b")], [dict.fromkeys(rungs, 3)]
    free = next_seeds(values, pairs, look, costs, 500, margin=0.5)
    assert set(free.seeds) == set(rungs)
    some = next_seeds(values, pairs, look, costs, 500, margin=0.5, available={"a": 4, "b": 20, "c": 20})
    assert some.seeds.get("a", 0) <= 1
    none = next_seeds(values, pairs, look, costs, 500, margin=0.5, available=dict.fromkeys(rungs, 3))
    assert (none.seeds, none.stop) == ({}, Stop.NO_MORE)
    first = next_seeds({}, pairs, [], costs, 500, available={"a": 2, "b": 7, "c": 1})
    assert first.seeds == {"a": 2, "b": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--budget 12runs --seeds 0 1", "--seeds: is a fixed number of seeds"),
        ("--step widen", "--step: goes with --budget or --until-answered"),
        ("--budget 12runs --step gelu", "unknown step 'gelu'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: str, message: str, downstream: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert downstream(*words.split()) == 2
    assert message in capsys.readouterr().err


def test_from_the_command_line_real_segmenters_are_trained_in_rounds(
    downstream: Callable[..., int], plan: Callable[..., Study], small_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = plan(RUNGS[:2], seeds=range(2))
    for run in study.planned():
        train_run(run, data_root=small_images)
    assert downstream("--budget", "4runs", "--executor", "debug", "--json", only=RUNGS[:2]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["seed"] for line in out.splitlines()] == [0, 1, 0, 1]
    assert "Round 1: 2 more seeds of every rung." in err
    assert "4 runs, 4 trained, 0 evaluated already, 4 to do, with task 'segmentation'" in " ".join(err.split())
    assert [path.name for path in study.runs.glob("studies/*/*")] == ["round-0001.json"]
    assert miou_of(study).loc["widen", "n"] == 2
    assert metric_of("miou").label == "mIoU (%)"
