import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import run_ladder
from analysis.evaluations.robustness import ROBUSTNESS_COLUMNS, collect_robustness, metrics_under
from analysis.figures import Words, draw_robustness
from analysis.metrics import metric_of
from analysis.report.write import write_report
from analysis.study_results import StudyResults
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.data.batches import Data, load_data
from roadmap.data.datasets import describe_data, load_arrays
from roadmap.jobs.launcher import prepare
from roadmap.metrics.trained import weights_of
from roadmap.networks.model import build_model
from roadmap.recipe import Recipe
from roadmap.robustness import evaluation
from roadmap.robustness.attacks import Target
from roadmap.robustness.evaluation import ask, choose_images, evaluate
from roadmap.robustness.settings import CORRUPTION_NAMES, Damaged, Settings, is_complete, masks_gradients, read_found
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun, Study
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.evaluation import predict
from roadmap.training.loop import save_weights
from tests.artists import all_text, artists, assert_texts_are_apart
from tests.conftest import NET, TINY, write_tiny
from tests.data.test_datasets import FOLDER, numbered, save_folder

SLIGHT = Settings(12, (4.0,), steps=2, check_images=5, check_steps=3, check_restarts=2, check_queries=2)
RUNGS = ["baseline_original", "baseline", "gelu"]


def leave_result(run: PlannedRun, seed: int) -> None:
    """Leave what a finished run leaves, with random weights."""
    prepare([run])
    torch.manual_seed(seed)
    model = build_model(run.config.net, num_classes=10, in_channels=1)
    for name in (run_folder.WEIGHTS, run_folder.EMA_WEIGHTS):
        save_weights(model, run.folder / name)
    row = {"result_version": run_folder.RESULT_VERSION, "state": "finished", "top1": 50.0 + seed, "test_images": 200}
    files.write_json(run.folder / run_folder.RESULT, dict.fromkeys(run_folder.COLUMNS) | row)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> Study:
    """Three rungs with two seeds each, as if they were trained."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_tiny(folder / "recipes")
    study = plan_study(
        StudySpec("resnet50", recipe, only=RUNGS, seeds=(0, 1), runs=folder / "runs", data_root=small_images)
    )
    for number, run in enumerate(study.planned()):
        leave_result(run, number)
    return study


@pytest.fixture
def study(trained: Study, tmp_path: Path) -> Study:
    """The same, for a test alone."""
    shutil.copytree(trained.runs.parent, tmp_path, dirs_exist_ok=True)
    return replace(trained, runs=tmp_path / "runs")


def entry_of(right: float, radii: tuple[float, ...] = (4.0,), **more: Any) -> dict[str, Any]:
    """Return an entry of robustness.json of which everything hangs on one number."""
    names = [f"pgd_{radius:g}" for radius in radii]
    parts = {"clean": 80.0, "fgsm": {f"{radius:g}": right + 5 for radius in radii}} | dict.fromkeys(names, right)
    parts["masking"] = {"pgd": right, "more_steps": right, "restarts": right - 1, "square": right + 9}
    parts |= {name: [right, right, right, right, right - 5] for name in CORRUPTION_NAMES}
    asked = {"images": 500, "check_images": 100, "radii": list(radii), "weights": "last step", "fingerprint": "0"}
    return {"asked": asked, "cpu_s": {}, "parts": parts | more}


def write_found(folder: Path, *entries: dict[str, Any]) -> None:
    files.write_json(folder / run_folder.ROBUSTNESS, {"robustness_version": 1, "found": list(entries)})


def examined(study: Study, **masking: float) -> Study:
    """Give each run of a study a robustness of its own."""
    for number, run in enumerate(study.planned()):
        entry = entry_of(40.0 + 10 * RUNGS.index(run.rungs[0]) + run.config.seed)
        if number == 0:
            entry["parts"]["masking"] |= masking
        write_found(run.folder, entry)
    return study


# -- attacks


class Pixels:
    """Data of two pixels, which a network gets doubled and shifted."""

    classes = ("dark", "light")

    def prepare(self, pixels: Tensor) -> Tensor:
        return 2 * pixels - 1


class Line(nn.Module):
    """A network whose margin is known: it says light where x - 3 y > 0, of what it gets."""

    def forward(self, images: Tensor) -> Tensor:
        margin = images.flatten(1) @ torch.tensor([[1.0], [-3.0]])
        return torch.cat([-margin, margin], 1)


class Brightness(nn.Module):
    """A network without gradients: it counts grey levels in steps."""

    def forward(self, images: Tensor) -> Tensor:
        margin = (100 * images).round().mean((1, 2, 3)) + 0 * images.sum((1, 2, 3))
        return torch.stack([-margin, margin], 1)


def target_of(network: nn.Module) -> Target:
    return Target(network, Pixels(), (1, 1, 2), "cpu")  # type: ignore[arg-type]


def test_attacks_break_what_lies_nearer_to_the_border_than_their_radius_in_pixels() -> None:
    draw = np.random.default_rng(0)
    images = draw.uniform(0.2, 0.8, (300, 1, 1, 2)).astype(np.float32)
    margin = (2 * images.reshape(-1, 2) - 1) @ np.array([1.0, -3.0])
    labels = (margin > 0).astype(np.int64)
    reach = 2 * 4 * np.array([0.02, 0.06])  # by which a radius can move the margin: each pixel counts twice
    target = target_of(Line())
    for radius, far in zip((0.02, 0.06), reach, strict=True):
        sure = np.abs(np.abs(margin) - far) > 0.03 * far
        for withstood in (
            target.withstands_fgsm(images, labels, radius),
            target.withstands_pgd(images, labels, radius, 20),
            target.withstands_pgd(images, labels, radius, 20, restarts=3),
        ):
            assert np.array_equal(withstood[sure], (np.abs(margin) > far)[sure])
            assert 0.5 < withstood.mean() < 1


def test_restarts_and_an_empty_set_of_images_raise_nothing() -> None:
    none = np.zeros((0, 1, 1, 2), np.float32), np.zeros(0, np.int64)
    assert len(target_of(Line()).withstands_pgd(*none, 0.1, 3, restarts=2)) == 0


def test_attacks_are_the_same_each_time() -> None:
    images = np.random.default_rng(1).uniform(0, 1, (100, 1, 1, 2)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 2, 100)
    target = target_of(Line())
    torch.manual_seed(5)
    first = target.withstands_pgd(images, labels, 0.05, 2)
    torch.manual_seed(6)
    np.random.seed(7)
    assert np.array_equal(first, target.withstands_pgd(images, labels, 0.05, 2))


def test_a_network_without_gradients_is_found_out_by_the_attack_that_needs_none() -> None:
    draw = np.random.default_rng(0)
    images = draw.uniform(0.3, 0.7, (100, 1, 8, 8)).astype(np.float32)
    target = Target(Brightness(), Pixels(), (1, 8, 8), "cpu")  # type: ignore[arg-type]
    labels = target.estimator.predict(images).argmax(1)
    pgd = 100 * target.withstands_pgd(images, labels, 0.05, 20).mean()
    square = 100 * target.withstands_square(images, labels, 0.05, 20).mean()
    assert masks_gradients({"pgd": pgd, "more_steps": pgd, "restarts": pgd, "square": square}, 100)


@pytest.mark.parametrize(
    ("check", "masked"),
    [
        ({"more_steps": 40, "restarts": 39, "square": 60}, False),
        ({"more_steps": 41, "restarts": 41, "square": 39}, False),  # an image in a hundred is chance
        ({"more_steps": 42, "restarts": 39, "square": 60}, True),
        ({"more_steps": 40, "restarts": 43, "square": 60}, True),
        ({"more_steps": 40, "restarts": 40, "square": 38}, True),
    ],
)
def test_gradients_are_masked_where_the_weaker_attack_is_stronger(check: dict[str, float], masked: bool) -> None:
    assert masks_gradients({"pgd": 40.0} | check, 100) is masked
    assert not masks_gradients({"pgd": 40.0} | check, 20)  # where one image is five points


# -- what networks are shown


def test_images_that_are_picked_and_prepared_are_those_of_the_test(
    tiny_run: Callable[..., RunConfig], small_images: Path
) -> None:
    data = load_data(tiny_run(), small_images, "cpu")
    assert_picked(data, [3, 50, 199], (3, 1, 28, 28))


def test_images_of_a_folder_are_picked_as_they_are_cropped(tmp_path: Path) -> None:
    arrays = load_arrays("fashion_mnist_part")
    save_folder(tmp_path, arrays.train[:1000], arrays.train_labels[:1000])
    recipe = Recipe(**TINY | FOLDER)
    config = RunConfig(NET, recipe, describe_data(recipe, tmp_path), 0)
    assert_picked(load_data(config, tmp_path, "cpu", 0), [0, 5, 7], (3, 3, 32, 32))


def assert_picked(data: Data, numbers: list[int], shape: tuple[int, ...]) -> None:
    tested, labels = (torch.cat(parts) for parts in zip(*data.test(), strict=True))
    pixels, picked = data.pick(numbers)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, shape)
    assert torch.allclose(data.prepare(pixels / 255), tested[numbers], atol=1e-5)
    assert torch.equal(picked, labels[numbers])


def test_the_same_images_are_drawn_for_all_and_none_that_is_a_training_image_too() -> None:
    data = numbered(50, 30)
    drawn = choose_images(data, 30, 12)
    assert drawn == sorted(set(drawn)) == choose_images(data, 30, 12)
    assert len(drawn) == 12
    data.train[7] = data.test_images[drawn[4]]
    again = choose_images(data, 30, 12)
    assert drawn[4] not in again
    assert len(again) == 12
    assert len(choose_images(data, 30, 500)) == 29


# -- evaluating


def test_a_network_is_evaluated_once_and_part_by_part(study: Study, small_images: Path) -> None:
    first, second = study.planned()[:2]
    told: list[str] = []
    evaluate(first.folder, first.config, SLIGHT, data_root=small_images, report=told.append)
    assert told == ["reading", *SLIGHT.parts]
    (entry,) = read_found(first.folder)
    assert is_complete(entry)
    told.clear()
    evaluate(first.folder, first.config, SLIGHT, data_root=small_images, report=told.append)
    assert told == []

    def stop(part: str) -> None:
        if part == "gaussian_noise":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(second.folder, second.config, SLIGHT, data_root=small_images, report=stop)
    (half,) = read_found(second.folder)
    assert list(half["parts"]) == ["clean", "fgsm", "pgd_4", "masking"]
    assert not is_complete(half)
    evaluate(second.folder, second.config, SLIGHT, data_root=small_images, report=told.append)
    assert told == ["reading", *CORRUPTION_NAMES]
    (whole,) = read_found(second.folder)
    (second.folder / run_folder.ROBUSTNESS).unlink()
    evaluate(second.folder, second.config, SLIGHT, data_root=small_images)
    assert read_found(second.folder)[0]["parts"] == whole["parts"]


def test_accuracy_without_any_harm_is_that_of_the_stored_weights(study: Study, small_images: Path) -> None:
    run = study.planned()[2]
    model_under_test = evaluation.ModelUnderTest(run.folder, run.config, SLIGHT, 200, small_images, "cpu")
    model = build_model(run.config.net, num_classes=10, in_channels=1)
    model.load_state_dict(load_file(run.folder / run_folder.WEIGHTS))
    logits, labels = predict(model, load_data(run.config, small_images, "cpu"), "cpu")
    right = (logits.argmax(1) == labels).numpy()
    assert np.array_equal(model_under_test.right, right[model_under_test.numbers])
    assert model_under_test.measure("clean") == pytest.approx(100 * right[model_under_test.numbers].mean())


def test_other_settings_or_weights_are_asked_anew_and_what_was_found_stays(study: Study, tmp_path: Path) -> None:
    run = study.planned()[0]
    asked = ask(run.folder, run.config, SLIGHT)
    assert ask(run.folder, run.config, replace(SLIGHT, radii=(2.0,))) != asked
    assert ask(run.folder, run.config, replace(SLIGHT, images=1000))["images"] == 200  # there are no more
    shutil.copy(study.planned()[1].folder / run_folder.WEIGHTS, run.folder / run_folder.WEIGHTS)
    assert ask(run.folder, run.config, SLIGHT) != asked
    averaged = replace(run.config, recipe=replace(run.config.recipe, ema=0.9))
    assert weights_of(run.folder, averaged).name == run_folder.EMA_WEIGHTS
    (run.folder / run_folder.WEIGHTS).unlink()
    with pytest.raises(UserError, match="Train the run again"):
        ask(run.folder, run.config, SLIGHT)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"found": []}',
        '{"robustness_version": 1, "found": [3]}',
        '{"robustness_version": 1, "found": [{"asked": {"radii": [2], "images": 5, "check_images": 5}, "parts": '
        '{"clean": null}}]}',
        '{"robustness_version": 1, "found": [{"asked": {"radii": [2], "images": 5, "check_images": 5}, "parts": '
        '{"frost": [1, 2]}}]}',
    ],
)
def test_a_damaged_file_says_so(damage: str, tmp_path: Path) -> None:
    (tmp_path / run_folder.ROBUSTNESS).write_text(damage)
    with pytest.raises(Damaged, match=r"robustness.json: is damaged\. 'robustness' measures it again"):
        read_found(tmp_path)


def test_a_file_of_another_version_counts_as_none(tmp_path: Path) -> None:
    assert read_found(tmp_path) == []
    (tmp_path / run_folder.ROBUSTNESS).write_text('{"robustness_version": 99, "found": "whatever"}')
    assert read_found(tmp_path) == []


# -- what a report says


def test_a_frame_has_what_was_found_and_mce_is_against_the_baseline(study: Study) -> None:
    found = collect_robustness(examined(study))
    assert found.reference == "baseline"
    assert list(found.frame) == [name.replace("_R", "_4") for name in ROBUSTNESS_COLUMNS]
    row = found.frame.set_index(["rung", "seed"]).loc[("gelu", 1)]
    assert (row["clean_top1"], row["pgd_4"], row["fgsm_4"], row["corrupted_top1"]) == (80, 61, 66, 60)
    # Errors: 40 at every corruption; those of the baseline 51 and 50, of which the mean is 50.5.
    assert row["mce"] == pytest.approx(100 * 40 / 50.5)
    assert found.frame.groupby("rung")["mce"].mean()["baseline"] == pytest.approx(100)
    assert not found.frame["masks_gradients"].any()


def test_entries_asked_in_other_ways_than_most_are_left_out(study: Study) -> None:
    examined(study)
    folders = [run.folder for run in study.planned()]
    write_found(folders[0], entry_of(99.0, (1.0, 2.0)))
    write_found(folders[1], entry_of(99.0, (1.0, 2.0)), entry_of(10.0))
    half = entry_of(50.0)
    del half["parts"]["fog"]
    write_found(folders[2], half)
    (folders[3] / run_folder.ROBUSTNESS).write_text("{")
    found = collect_robustness(study)
    assert found.radii == (4.0,)
    assert len(found.frame) == 3
    assert 10.0 in found.frame["pgd_4"].to_list()
    assert any("is damaged" in note for note in found.notes)
    assert any("3 of 6 runs" in note for note in found.notes)


def test_metrics_of_robustness_are_judged_beside_the_others(study: Study) -> None:
    assert not set(StudyResults(study).verdicts["metric"]) & {"pgd_4", "fgsm_4", "corrupted_top1", "mce"}
    judged = StudyResults(examined(study)).verdicts
    assert judged["metric"].unique()[-4:].tolist() == ["fgsm_4", "pgd_4", "corrupted_top1", "mce"]
    changes = judged[judged["step"] == "baseline"].set_index("metric")
    assert changes.loc["pgd_4", "delta"] == pytest.approx(10)
    assert changes.loc["pgd_4", "answer"] == "helps"
    assert changes.loc["mce", "delta"] < 0
    assert changes.loc["mce", "answer"] == "helps"
    assert metric_of("pgd_4").label == "PGD-20 4/255 (%)"
    assert metric_of("mce").better == -1
    assert metrics_under([0.5])["pgd_0.5"].label == "PGD-20 0.5/255 (%)"


def test_a_report_shows_what_was_found_and_nothing_where_nothing_was(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = {file.name for file in write_report(examined(study, square=10.0), out)}
    assert len(pd.read_csv(out / "robustness.csv")) == 6
    text = (out / "ladder.md").read_text()
    assert "in all runs but baseline_original seed 0: their accuracies under FGSM and PGD mean nothing" in text
    assert "| YES, 1 of 2 |" in text
    assert "PGD-20 4/255" in (out / "report.html").read_text()
    assert "## PGD-20 4/255 (%)" in (out / "verdicts.md").read_text()
    figure = (out / "robustness.svg").read_text()
    assert "†" in figure
    assert "PROXY, not ImageNet" in figure
    for run in study.planned():
        (run.folder / run_folder.ROBUSTNESS).unlink()
    files = {file.name for file in write_report(study, out)}
    assert told - files == {"robustness.csv", "robustness.svg", "robustness.pdf"}
    assert not (out / "robustness.svg").exists()
    for name in ("report.html", "ladder.md", "verdicts.md", "verdicts.csv"):
        assert not re.search("robustness:|PGD|mCE|masking", (out / name).read_text()), name


# -- the command


def ladder(study: Study, images: Path, *words: str) -> int:
    recipe = study.runs.parent / "recipes" / "tiny.yaml"
    command = ["robustness", "--base", "resnet50", "--recipe", str(recipe), "--data", str(images), "--only", *RUNGS]
    return run_ladder.main([*command, "--seeds", "0", "1", "--runs", str(study.runs), "--executor", "debug", *words])


def test_the_command_evaluates_what_is_trained_and_says_what_is_not(
    study: Study, small_images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = study.planned()
    (runs[0].folder / run_folder.RESULT).unlink()
    (runs[1].folder / run_folder.ROBUSTNESS).write_text("{")
    (runs[3].folder / run_folder.WEIGHTS).unlink()
    asked: list[Settings] = []

    def quick(folder: Path, config: RunConfig, settings: Settings, **more: Any) -> None:
        asked.append(settings)
        if folder == runs[2].folder:
            raise UserError("model.safetensors: is damaged")
        entry = entry_of(40.0, settings.radii)
        write_found(folder, entry | {"asked": ask(folder, config, settings), "parts": entry["parts"]})

    monkeypatch.setattr(evaluation, "evaluate", quick)
    assert ladder(study, small_images, "--images", "20", "--radii", "8", "0.5") == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "6 runs, 5 trained, 0 evaluated already, 4 to do, with 20 test images each" in out
    assert "baseline_original seed 1: not evaluated:" in out
    assert "robustness.json: is damaged. 'robustness' measures it again." in out
    assert "gelu seed 0: not evaluated: model.safetensors: is damaged" in out
    assert {(settings.images, settings.radii) for settings in asked} == {(20, (0.5, 8.0))}
    assert ladder(study, small_images, "--images", "20", "--radii", "0.5", "8", "--json") == 1
    printed = capsys.readouterr()
    assert "3 evaluated already, 1 to do" in " ".join(printed.err.split())
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["pgd_8"] for row in rows] == [40.0] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--radii", "0"], "--radii: '0' is no radius"),
        (["--radii", "x"], "--radii: 'x' is no radius"),
        (["--images", "0"], "--images: '0' is not a whole number from 1 up"),
        (["--jobs", "0"], "--jobs: '0' is not a whole number"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    words: list[str], said: str, study: Study, small_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ladder(study, small_images, *words) == 2
    assert said in capsys.readouterr().err


def test_without_the_toolbox_it_is_said_what_to_install(
    study: Study, small_images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadmap.robustness.attacks.find_spec", lambda name: None)
    assert ladder(study, small_images) == 2
    assert "pip install -e '.[robustness]'" in capsys.readouterr().err


# -- the figure


def test_a_figure_marks_the_mean_of_each_rung_under_each_attack(study: Study) -> None:
    found = collect_robustness(examined(study, more_steps=90.0))
    table = pd.DataFrame(
        {"rung": RUNGS, "label": ["plain $ recipe", "modern recipe", "ReLU → GELU"], "adopted": [True, True, False]}
    )
    figure = draw_robustness(found.frame, found.radii, table, Words(title="Robustness", axis="Top-1 (%)", note="PROXY"))
    marks = artists(figure, "mark")
    assert len(marks) == 4 * len(RUNGS)
    assert marks["pgd_4-gelu"].get_xdata()[0] == pytest.approx(60.5)
    assert marks["corrupted_top1-baseline"].get_xdata()[0] == pytest.approx(49.5)
    assert list(artists(figure, "spread")["fgsm_4-gelu"].get_xdata()) == pytest.approx(
        [65.5 - 0.5**0.5, 65.5 + 0.5**0.5]
    )
    text = all_text(figure)
    assert "plain $ recipe †" in text
    assert "modern recipe †" not in text
    assert "100.0" in text  # the baseline's mCE
    assert_texts_are_apart(figure)
