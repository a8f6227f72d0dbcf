import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from analysis.metrics import COSTS, SPEEDS
from analysis.run_frames import MEASURED, collect_measured, cost_rows
from analysis.terminal import print_costs
from roadmap.common.errors import UserError
from roadmap.ladder.ladder import read_ladder
from roadmap.measuring import meter
from roadmap.measuring import rung_costs as measuring
from roadmap.measuring.meter import Batches, Meter, make_batches
from roadmap.measuring.rung_costs import FOLDER, Row, keys_of, measure, networks, read_measured, write_measured
from roadmap.runs.config import RunConfig
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.step import make_model
from tests.processes import Command, Outcome

MakeRecipes = Callable[..., Path]
MakeRun = Callable[..., RunConfig]
# `twin` is the same network as `small` under the same recipe.
STEPS = """\
bases: {resnet50: {label: ResNet-50, result: End}}
rungs:
  - {id: plain, label: plain, recipe: plain}
  - {id: start, label: start, step: enhanced_recipe}
  - {id: small, label: small, step: stage_ratio, args: {blocks: [1, 1, 1, 1]}}
  - {id: twin, label: twin, from: start, step: stage_ratio, args: {blocks: [1, 1, 1, 1]}}
"""


@pytest.fixture
def study(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> Study:
    (tmp_path / "steps.yaml").write_text(STEPS)
    ladder, runs = read_ladder(tmp_path / "steps.yaml"), tmp_path / "runs"
    recipe = write_recipes(seeds=[0, 1], epochs=1, warmup_epochs=0)
    return plan_study(StudySpec("resnet50", str(recipe), ladder, runs=runs, data_root=small_images))


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is timed: (training or inference, which network)."""
    seen: list[tuple[str, int]] = []
    for kind in ("training_speed", "test_speed"):
        monkeypatch.setattr(Meter, kind, lambda self, seconds, kind=kind: seen.append((kind, id(self))) or 1.0)
    return seen


def filled(keys: set[str], speed: float = 100.0, **values: Any) -> dict[str, Any]:
    """Return a measurement of two rounds."""
    row = {
        "rungs": ["some"],
        "train_images_per_s": [speed, 2 * speed],
        "test_images_per_s": [speed, speed],
        "peak_memory_mb": 1.5,
        "activations": 10,
    }
    return {"measured_version": 1, "threads": 1, "rows": {key: row | values for key in keys}}


# -- measuring


def test_every_network_is_visited_in_every_round_in_an_order_that_turns_around(
    study: Study, visits: list[tuple[str, int]]
) -> None:
    shown: list[tuple[int, int, str]] = []
    measured = measure(study, rounds=3, threads=1, show=lambda *step: shown.append(step))
    trained = [network for kind, network in visits if kind == "training_speed"]
    assert len(visits) == 2 * len(trained) == 2 * 3 * 3
    assert trained[:3] == trained[3:6][::-1] == trained[6:]
    assert set(Counter(trained).values()) == {3}
    assert [done for done, _, _ in shown] == list(range(12))
    assert {total for _, total, _ in shown} == {12}
    assert measured["rows"].keys() == keys_of(study)
    assert [row["rungs"] for row in measured["rows"].values()] == [["plain"], ["start"], ["small", "twin"]]
    for row in measured["rows"].values():
        assert row.keys() == Row.__annotations__.keys()
        assert len(row["train_images_per_s"]) == len(row["test_images_per_s"]) == 3
    assert {"at", "device", "threads", "commit", "versions"} <= measured.keys()
    assert (measured["image_size"], measured["batch_size"]) == (32, 32)


def test_no_round_begins_after_the_limit_but_the_first(study: Study, visits: list[tuple[str, int]]) -> None:
    measured = measure(study, rounds=3, limit_s=0.0, threads=1)
    assert {len(row["test_images_per_s"]) for row in measured["rows"].values()} == {1}


def test_what_is_measured_can_be_written_and_read_and_the_number_of_threads_stays(
    study: Study, visits: list[tuple[str, int]]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        measured = measure(study, rounds=1, threads=before)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert measured["threads"] == before
    path = write_measured(study.runs, measured)
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}\.json", path.name)
    assert path.parent == study.runs / "measured"
    assert read_measured(study.runs, keys_of(study)) == measured == json.loads(path.read_text())


def batches_of(config: RunConfig, size: int) -> Batches:
    return make_batches(config, size, 4, "cpu")


def test_memory_is_the_same_each_time_and_grows_with_the_batch_alone(tiny_run: MakeRun) -> None:
    config = tiny_run()
    peaks = [Meter(config, batches_of(config, size)).peak_memory for size in (8, 8, 16, 32)]
    assert peaks[0] == peaks[1]
    image = (peaks[3] - peaks[2]) / 16
    assert image * 8 == pytest.approx(peaks[2] - peaks[1], rel=0.05)
    assert image > 4 * 32 * 32


def test_memory_is_that_of_what_lives_through_a_step_and_of_what_comes_and_goes_in_it(
    tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run()
    batches = batches_of(config, 8)
    params = sum(p.numel() for p in make_model(config, "cpu").parameters())
    alone = Meter(config, batches).peak_memory
    monkeypatch.setattr(Meter, "_train_step", lambda self: None)
    idle = Meter(config, batches)
    held = idle.peak_memory  # no optimizer state, no gradients: weights, buffers and batch
    buffers = sum(b.numel() * b.element_size() for b in idle.model.buffers())
    assert held == 4 * params + buffers + 8 * (4 * 32 * 32 + 8)
    assert alone > held + 3 * 4 * params  # gradients and two moments


def test_the_recipes_moving_average_and_mixed_targets_are_part_of_a_step(tiny_run: MakeRun) -> None:
    plain, averaged = tiny_run(), tiny_run(ema=0.9, mixup=0.5)
    meters = [Meter(config, batches_of(config, 8)) for config in (plain, averaged)]
    weights = sum(p.numel() * 4 for p in meters[0].model.parameters())
    assert meters[1].peak_memory >= meters[0].peak_memory + weights
    assert meters[1].targets.shape == (8, 10)


def test_bfloat16_takes_less_memory(tiny_run: MakeRun) -> None:
    peaks = [Meter(tiny_run(amp=amp), batches_of(tiny_run(), 32)).peak_memory for amp in ("none", "bfloat16")]
    assert peaks[1] < peaks[0]


def test_timing_leaves_the_weights_as_they_are(tiny_run: MakeRun) -> None:
    config = tiny_run(optimizer="sgd", lr=0.5)
    scales = Meter(config, batches_of(config, 8))
    before = [parameter.clone() for parameter in scales.model.parameters()]
    assert scales.training_speed(0.0) > 0
    assert scales.test_speed(0.0) > 0
    assert all(torch.equal(old, new) for old, new in zip(before, scales.model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in scales.model.parameters())


def test_a_visit_takes_as_many_steps_as_fit_and_two_at_least(
    tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run()
    scales = Meter(config, batches_of(config, 8))
    counts = []
    monkeypatch.setattr(Meter, "_time", lambda self, step, steps: counts.append(steps) or 0.5)
    scales._train_step_s, scales._test_step_s = 0.25, 3.0
    assert scales.training_speed(1.0) == 8 / 0.5
    assert scales.test_speed(1.0) == 4 / 0.5
    assert counts == [4, 2]


def test_a_batch_that_does_not_fit_into_memory_is_halved_for_all(
    study: Study, monkeypatch: pytest.MonkeyPatch, visits: list[tuple[str, int]]
) -> None:
    image = measuring.BYTES_PER_ACTIVATION * max(run.activations for run in networks(study))
    weights = measuring.BYTES_PER_PARAMETER * sum(run.params for run in networks(study))
    free = (5 * image + weights) / measuring.MEMORY_SHARE
    monkeypatch.setattr(measuring, "_free_memory", lambda device: free)
    assert measure(study, rounds=1, threads=1)["batch_size"] == 4


def test_a_step_takes_no_more_memory_than_is_reckoned_with(study: Study, visits: list[tuple[str, int]]) -> None:
    for run in networks(study):
        peak = Meter(run.config, batches_of(run.config, 64)).peak_memory
        assert peak < measuring.BYTES_PER_ACTIVATION * run.activations * 32 + measuring.BYTES_PER_PARAMETER * run.params


def test_a_device_without_the_memory_is_one_message(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(meter, "take_step", fail)
    with pytest.raises(UserError, match=r"no memory for batches of 32 images.*--only"):
        measure(study, threads=1)


def test_the_free_memory_of_this_machine_is_known() -> None:
    assert 1e6 < measuring._free_memory("cpu") < 1e15


# -- files


def write(runs: Path, name: str, content: Any) -> None:
    (runs / FOLDER).mkdir(parents=True, exist_ok=True)
    (runs / FOLDER / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_newest_file_that_covers_all_networks_is_read(tmp_path: Path) -> None:
    for name, keys, speed in (("1-a", "ab", 1.0), ("2-a", "abc", 2.0), ("3-a", "abcd", 3.0), ("4-a", "bz", 4.0)):
        write(tmp_path, f"{name}.json", filled(set(keys), speed))

    def speed_of(keys: str) -> float | None:
        found = read_measured(tmp_path, set(keys))
        return found and next(iter(found["rows"].values()))["test_images_per_s"][0]

    assert speed_of("ab") == speed_of("abcd") == 3.0
    assert speed_of("b") == speed_of("bz") == 4.0
    assert speed_of("abx") == 3.0  # two of three, and the newest of those
    assert speed_of("x") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "9" * 5000,
        "[" * 100_000,
        json.dumps(filled({"a"}))[:-5],
        filled({"a"}) | {"measured_version": 2},
        filled({"a"}) | {"measured_version": None},
        filled({"a"}) | {"rows": ["a"]},
        filled({"a"}) | {"rows": {"a": None}},
        filled({"a"}) | {"rows": {"a": {"rungs": []}}},
        filled({"a"}, peak_memory_mb=float("nan")),
        filled({"a"}, peak_memory_mb="1"),
        filled({"a"}, activations=None),
        filled({"a"}, rungs="some"),
        filled({"a"}, train_images_per_s=[]),
        filled({"a"}, train_images_per_s=[1.0]),
        filled({"a"}, train_images_per_s=[0.0, 1.0]),
        filled({"a"}, test_images_per_s=[float("inf"), 1.0]),
        filled({"a"}, test_images_per_s=5.0),
    ],
)
def test_files_that_are_damaged_or_something_else_are_passed_over(content: Any, tmp_path: Path) -> None:
    write(tmp_path, "2.json", content)
    assert read_measured(tmp_path, {"a"}) is None
    write(tmp_path, "1.json", filled({"a"}))
    assert read_measured(tmp_path, {"a"}) == filled({"a"})


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    assert read_measured(tmp_path / "nowhere", {"a"}) is None
    (tmp_path / "file").write_text("")
    assert read_measured(tmp_path / "file", {"a"}) is None
    (tmp_path / FOLDER / "3.json").mkdir(parents=True)
    (tmp_path / FOLDER / "2.json").symlink_to("nowhere")
    (tmp_path / FOLDER / ".1.json.0123").write_text("{")
    assert read_measured(tmp_path, {"a"}) is None
    write(tmp_path, "0.json", filled({"a"}))
    assert read_measured(tmp_path, {"a"}) == filled({"a"})


# -- tables


def test_the_frame_has_a_row_for_each_rung_and_round(study: Study) -> None:
    empty = collect_measured(study)
    assert (list(empty.columns), len(empty)) == (list(MEASURED), 0)
    keys = keys_of(study) - {study.configs["plain", 0].key}
    write_measured(study.runs, filled(keys))
    frame = collect_measured(study)
    assert list(frame.columns) == list(MEASURED)
    assert list(zip(frame["rung"], frame["round"], strict=True)) == [
        (rung, number) for rung in ("start", "small", "twin") for number in (1, 2)
    ]
    assert frame["train_images_per_s"].tolist() == [100.0, 200.0] * 3


def test_factors_are_those_of_the_same_round(study: Study) -> None:
    frame = pd.DataFrame(
        [
            (rung, number, speed * slow, 7.0 * speed, memory, 10)
            for rung, speed, memory in (("start", 10.0, 4.0), ("small", 15.0, 6.0))
            for number, slow in ((1, 1.0), (2, 0.5), (3, 0.1 if rung == "start" else 0.3))
        ],
        columns=list(MEASURED),
    )
    rows = {row["rung"]: row for row in cost_rows(study, frame)}
    assert list(rows) == ["plain", "start", "small", "twin"]
    assert rows["small"]["train_images_per_s"] == 7.5
    assert rows["small"]["train_images_per_s_factor"] == 1.5
    assert rows["small"]["test_images_per_s_factor"] == 1.5
    assert rows["small"]["peak_memory_mb_factor"] == 1.5
    assert 0 < rows["small"]["macs_factor"] < 1
    assert rows["start"]["macs_factor"] == rows["start"]["params_factor"] == 1
    assert rows["plain"]["peak_memory_mb"] is rows["start"]["peak_memory_mb_factor"] is None
    assert all(rows["plain"][f"{cost}_factor"] is None for cost in COSTS | SPEEDS)
    assert all(isinstance(row[cost], int) for row in rows.values() for cost in ("macs", "params", "activations"))


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_a_terminal_whole(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"rung": "separate_downsampling"} | {cost: 123456.0 for cost in COSTS | SPEEDS}
    row |= {f"{cost}_factor": 1.314 for cost in COSTS | SPEEDS}
    print_costs([row], Console(width=width))
    said = capsys.readouterr().out
    assert "…" not in said
    assert said.count("x1.31") == 6
    assert said.count("123 k") + said.count("123.5 k") == 3
    assert all(len(line) <= width for line in said.splitlines())


# -- from the command line


@pytest.fixture
def command(study: Study, tmp_path: Path, small_images: Path) -> Callable[..., Outcome]:
    def start(*action: str) -> Outcome:
        options = ["--steps", tmp_path / "steps.yaml", "--base", "resnet50", "--data", small_images, "--jobs", "1"]
        options += ["--recipe", tmp_path / "recipes" / "tiny.yaml", "--seeds", "0"]
        return Command(tmp_path, *action, *map(str, options), cores=1).wait()

    return start


def test_measure_prints_a_table_even_if_it_cannot_keep_what_it_measured(
    study: Study, command: Callable[..., Outcome]
) -> None:
    study.runs.mkdir()
    (study.runs / FOLDER).write_text("in the way")
    ended = command("measure")
    assert ended.code == 2
    assert ended.out.startswith("PROXY, not ImageNet")
    for rung in study.rungs:
        assert re.search(rf"^{rung.id} ", ended.out, re.MULTILINE)
    assert "batches of 32 images in training and of 500 in inference" in " ".join(ended.out.split())
    assert re.fullmatch(r"run_ladder\.py: runs/measured/\S+: cannot be written[^\n]+\n", ended.err)


def test_measure_prints_one_object_a_rung_and_keeps_what_it_measured(
    study: Study, command: Callable[..., Outcome]
) -> None:
    ended = command("measure", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = ended.rows()
    befores = [("plain", None), ("start", "plain"), ("small", "start"), ("twin", "start")]
    assert [(row["rung"], row["before"]) for row in rows] == befores
    assert len(list((study.runs / FOLDER).iterdir())) == 1
    frame = collect_measured(study)
    assert rows == cost_rows(study, frame)
    assert set(frame["round"]) == set(range(1, measuring.ROUNDS + 1))


def test_a_trained_study_is_measured_once_and_where_that_fails_it_is_reported_all_the_same(
    study: Study, command: Callable[..., Outcome]
) -> None:
    study.runs.mkdir()
    (study.runs / FOLDER).write_text("in the way")
    ended = command("run")
    assert (ended.code, ended.err) == (0, "")
    assert "Not measured (Unwritable: runs/measured/" in " ".join(ended.out.split())
    assert "3 of 3 runs done" in ended.out
    (study.runs / FOLDER).unlink()
    ended = command("run")
    assert (ended.code, ended.err) == (0, "")
    assert "Measuring time and memory of 3 networks side by side: about" in ended.out
    assert set(collect_measured(study)["rung"]) == {rung.id for rung in study.rungs}
    ended = command("run")
    assert (ended.code, ended.err) == (0, "")
    assert "easur" not in ended.out
    assert len(list((study.runs / FOLDER).iterdir())) == 1
