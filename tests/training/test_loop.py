import hashlib
import math
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from roadmap import build_model
from roadmap.common import files
from roadmap.jobs.worker import Job
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.training import loop as train_module
from roadmap.training.checkpoints import checkpoints, write_checkpoint
from roadmap.training.evaluation import metrics
from roadmap.training.loop import Request, Stopped, _Training, train
from tests.conftest import TEST_IMAGES, TRAIN_IMAGES
from tests.processes import STOPPED, Left, fork, outcome, start_training, wait_for, writing
from tests.samples import ALL_AUGMENTATION, LAYER_NORM

MakeRun = Callable[..., RunConfig]


def undisturbed(config: RunConfig, root: Path, folder: Path) -> Left:
    folder.mkdir()
    train(config, folder, data_root=root)
    return outcome(folder)


@pytest.fixture(autouse=True)
def look_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "LOOK_EVERY_S", 0.0)


def stop_after(steps: int) -> Callable[[], Request]:
    """Return what asks to stop when it has been asked that often."""
    requests: Iterator[Request] = iter([""] * (steps - 1))
    return lambda: next(requests, "stop")


def leave_checkpoint(config: RunConfig, root: Path, folder: Path, steps: int = 3) -> Path:
    folder.mkdir()
    with pytest.raises(Stopped):
        train(config, folder, data_root=root, asked=stop_after(steps))
    return checkpoints(folder)[0]


# -- determinism and going on


def test_the_same_run_in_two_processes_ends_the_same_bit_for_bit(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run(**ALL_AUGMENTATION)
    process = start_training(config, tmp_path / "there", small_images)
    here = undisturbed(config, small_images, tmp_path / "here")
    process.join()
    assert outcome(tmp_path / "there") == here


def test_another_seed_ends_elsewhere(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    ends = [undisturbed(tiny_run(seed=seed), small_images, tmp_path / str(seed)) for seed in (0, 1)]
    assert ends[0][0] != ends[1][0]
    assert ends[0][2][0]["train_loss"] != ends[1][2][0]["train_loss"]


@pytest.fixture(scope="module")
def plain_outcome(tiny_run: MakeRun, small_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    return undisturbed(tiny_run(batch_size=64), small_images, tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "lr": 0.05, "schedule": "step", "decay_epochs": 0.5, "decay_norms_and_biases": True},
        {"clip_grad": 0.1},
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"random_erasing": 0.5},
        {"shift": 2, "hflip": 0.5},
        {"drop_path": 0.3},
        {"amp": "bfloat16"},
        {"amp": "float16", "clip_grad": 1.0},
        {"accumulate": 4},
        {"layer_decay": 0.5},
        {"head_init_scale": 0.1},
        {"net": LAYER_NORM},
        ALL_AUGMENTATION,
    ],
    ids=lambda settings: "+".join(settings),
)
def test_every_setting_matters_and_a_run_that_was_stopped_twice_ends_as_if_it_never_was(
    settings: dict[str, Any], plain_outcome: Left, tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run(**{"batch_size": 64} | settings)
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    assert expected[0] != plain_outcome[0]
    folder = tmp_path / "stopped"
    leave_checkpoint(config, small_images, folder, 3)
    with pytest.raises(Stopped):
        train(config, folder, data_root=small_images, asked=stop_after(5))
    train(config, folder, data_root=small_images)
    assert outcome(folder) == expected


def test_a_run_that_goes_on_with_other_threads_says_so_and_its_row_has_their_number(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_run()
    leave_checkpoint(config, small_images, tmp_path / "run", 3)
    row = train(config, tmp_path / "run", data_root=small_images, threads=2)
    assert "was trained with 1 threads so far, now with 2, which rounds differently" in capsys.readouterr().out
    assert row["threads"] == 2


def test_the_moving_average_of_a_stopped_run_is_the_same_too(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, logits = tiny_run(ema=0.9), []
    predict = train_module.predict

    def noting(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        logits.append(predict(*arguments, **options)[0])
        return predict(*arguments, **options)

    monkeypatch.setattr(train_module, "predict", noting)
    undisturbed(config, small_images, tmp_path / "undisturbed")
    leave_checkpoint(config, small_images, tmp_path / "stopped", 15)
    train(config, tmp_path / "stopped", data_root=small_images)
    own, average, own_again, average_again = logits
    assert torch.equal(own, own_again)
    assert torch.equal(average, average_again)
    assert not torch.equal(own, average)


def test_a_checkpoint_from_before_losses_were_scaled_is_gone_on_from(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run()
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    path = leave_checkpoint(config, small_images, tmp_path / "stopped")
    content = torch.load(path, weights_only=True)
    del content["scaler"]
    path.unlink()
    with writing(tmp_path / "stopped") as writer:
        write_checkpoint(writer, content["step"], content)
    train(config, tmp_path / "stopped", data_root=small_images)
    assert outcome(tmp_path / "stopped") == expected


def test_stopping_at_the_very_last_step_loses_nothing(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    config = tiny_run()
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    leave_checkpoint(config, small_images, tmp_path / "stopped", 20)
    asked: list[int] = []
    train(config, tmp_path / "stopped", data_root=small_images, asked=lambda: asked.append(0) or "")  # type: ignore
    assert len(asked) == 1  # before the result is written; once more for every step
    assert outcome(tmp_path / "stopped") == expected


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run(**ALL_AUGMENTATION, epochs=4)
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    draw, kills, finished = random.Random(0), 0, 0
    while kills < 24 or finished < 2:
        folder = tmp_path / f"killed{finished}"
        before = checkpoints(folder)
        process = start_training(config, folder, small_images, save_every_step=True)
        if draw.random() < 0.7:  # let it come further; else it may die before its first step
            while checkpoints(folder) == before and process.is_alive():
                process.join(0.01)
        process.join(draw.uniform(0.0, 0.3))
        if run_folder.is_done(folder):  # a kill now would start all over again: the test after this has those
            process.join()
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
        else:
            assert process.exitcode == 0
            assert outcome(folder) == expected
            finished += 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "file", [run_folder.METRICS, "checkpoint", run_folder.WEIGHTS, run_folder.PREDICTIONS, run_folder.RESULT]
)
def test_a_run_killed_just_before_or_after_a_file_is_in_place_ends_as_if_it_never_was(
    file: str, moment: str, tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run(batch_size=64)
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    folder.mkdir()
    process = fork(_train_and_die, config, folder, small_images, file, moment)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run_folder.is_done(folder) == ((file, moment) == (run_folder.RESULT, "after"))
    train(config, folder, data_root=small_images)
    assert outcome(folder) == expected


def _train_and_die(config: RunConfig, folder: Path, root: Path, file: str, moment: str) -> None:
    put = Path.replace

    def is_it(target: Path) -> bool:
        return target.name.partition("-")[0] == file

    def put_and_die(self: Path, target: Path) -> Path:
        if is_it(target) and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        there = put(self, target)
        if is_it(target):
            os.kill(os.getpid(), signal.SIGKILL)
        return there

    Path.replace = put_and_die  # type: ignore[assignment, method-assign]
    train_module.LOOK_EVERY_S = 0.0
    train(config, folder, data_root=root, save_every_s=0.0)


def test_a_run_sent_sigterm_saves_itself_at_once_and_goes_on_from_there(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run(epochs=6)
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    folder = tmp_path / "stopped"
    process = start_training(config, folder, small_images)
    wait_for(lambda: run_folder.read_metrics(folder), what="an epoch")
    process.terminate()
    process.join()
    assert process.exitcode == STOPPED
    step = torch.load(checkpoints(folder)[0], weights_only=True)["step"]
    assert 10 <= step < 60
    asked = []
    train(config, folder, data_root=small_images, asked=lambda: asked.append(step) or "")
    assert len(asked) == 60 - step + 1  # once before the result is written
    assert outcome(folder) == expected


def test_times_count_all_attempts(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    config = tiny_run()
    saved = torch.load(leave_checkpoint(config, small_images, tmp_path / "run"), weights_only=True)
    with writing(tmp_path / "run") as writer:
        write_checkpoint(writer, saved["step"], saved | {"train_s": 100.0, "wall_s": 200.0})
    remove = [path for path in checkpoints(tmp_path / "run") if torch.load(path)["train_s"] != 100.0]
    remove[0].unlink()
    row = train(config, tmp_path / "run", data_root=small_images)
    assert 100 < row["train_s"] < 110
    assert 200 < row["wall_s"] < 210
    assert row["images_per_s"] == pytest.approx(2 * TRAIN_IMAGES / row["train_s"])


# -- checkpoints that cannot be trusted


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_checkpoint_is_not_trusted_and_the_run_starts_again(
    keep: float, tiny_run: MakeRun, small_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_run(batch_size=64)
    expected = undisturbed(config, small_images, tmp_path / "undisturbed")
    checkpoint = leave_checkpoint(config, small_images, tmp_path / "run")
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(keep * len(content))])
    train(config, tmp_path / "run", data_root=small_images)
    assert f"{checkpoint}: damaged (its checksum differs) and removed" in capsys.readouterr().out
    assert outcome(tmp_path / "run") == expected


def test_a_checkpoint_is_data_and_never_executed(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    config = tiny_run(batch_size=64)
    checkpoint = leave_checkpoint(config, small_images, tmp_path / "run")
    torch.save({"model": Trap()}, checkpoint, pickle_module=pickle)
    checkpoint.rename(checkpoint.with_name(f"checkpoint-9-{hashlib.sha256(checkpoint.read_bytes()).hexdigest()}.pt"))
    train(config, tmp_path / "run", data_root=small_images)
    assert not (tmp_path / "executed").exists()
    assert "Weights only load failed" in capsys.readouterr().out


# -- what a run leaves


def test_a_run_leaves_a_row_with_every_column(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    config = tiny_run(ema=0.5)
    row = train(config, tmp_path, data_root=small_images)
    assert row == run_folder.read_result(tmp_path)
    assert list(row) == list(run_folder.COLUMNS)
    assert row["images_seen"] == config.images_seen == 2 * TRAIN_IMAGES
    assert row["test_images"] == TEST_IMAGES
    assert row["error"] is None
    assert 0 <= row["top1_ema"] <= 100
    per_class = zip(row["top1_per_class"], torch.bincount(load_labels(small_images)).tolist(), strict=True)
    assert sum(share * count for share, count in per_class) / TEST_IMAGES == pytest.approx(row["top1"])
    right = run_folder.read_right(tmp_path)
    assert right is not None
    assert len(right) == TEST_IMAGES
    assert 100 * right.mean() == pytest.approx(row["top1"])


def load_labels(root: Path) -> Tensor:
    return torch.frombuffer(bytearray((root / "t10k-labels-idx1-ubyte").read_bytes()[8:]), dtype=torch.uint8)


def test_a_run_writes_a_line_an_epoch(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    row = train(tiny_run(epochs=3), tmp_path, data_root=small_images)
    lines = run_folder.read_metrics(tmp_path)
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 10), (2, 20), (3, 30)]
    assert lines[0]["train_loss"] > lines[2]["train_loss"] == row["train_loss"]
    assert all(line["images_per_s"] > 0 for line in lines)


def test_the_weights_load_into_the_network(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    config = tiny_run()
    train(config, tmp_path, data_root=small_images)
    build_model(config.net, num_classes=10, in_channels=1).load_state_dict(load_file(tmp_path / run_folder.WEIGHTS))


def test_a_run_tells_where_it_stands(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "LOOK_EVERY_S", 0.0)
    shown = []

    def look() -> Request:
        shown.append(files.read_json(tmp_path / run_folder.PROGRESS))
        return ""

    row = train(tiny_run(), tmp_path, data_root=small_images, asked=look)
    told = [now for now in shown if now and now["state"] == "running"]
    assert [now["step"] for now in told] == list(range(1, 20))
    assert [now["epoch"] for now in told] == [1] * 10 + [2] * 9
    assert all((now["state"], now["steps"], now["epochs"]) == ("running", 20, 2) for now in told)
    last = files.read_json(tmp_path / run_folder.PROGRESS)
    assert (last["state"], last["step"]) == ("evaluating", 20)
    assert last["images_per_s"] == pytest.approx(row["images_per_s"], rel=0.05)
    assert told[-1]["images_per_s"] == pytest.approx(row["images_per_s"], rel=0.5)


def test_a_run_that_diverges_is_a_row_and_the_next_one_is_trained(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    bad, good = tiny_run(lr=1e30, warmup_epochs=0.0), tiny_run()
    folders = tuple(tmp_path / config.id for config in (bad, good))
    for folder, config in zip(folders, (bad, good), strict=True):
        folder.mkdir()
        files.write_json(folder / run_folder.RUN, {"config": config.to_json()})
    Job(folders, small_images)()
    rows = [run_folder.read_result(folder) for folder in folders]
    assert [row and row["state"] for row in rows] == ["diverged", "finished"]
    assert rows[0]["top1"] is None
    assert "the loss is nan at step" in rows[0]["error"]
    assert run_folder.is_done(folders[0])


def test_where_a_run_diverged_does_not_depend_on_when_someone_looked(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run(lr=1e30, warmup_epochs=0.0)
    ends = []
    for name, often in (("seldom", 1e9), ("always", 0.0)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(train_module, "LOOK_EVERY_S", often)
        row = train(config, tmp_path / name, data_root=small_images)
        ends.append((row["error"], row["images_seen"]))
    assert ends[0] == ends[1]


# -- loss, learning rate, weight decay


@pytest.mark.parametrize(("settings", "smoothing"), [({}, 0.1), ({"mixup": 0.8}, 0.0), ({"label_smoothing": 0.0}, 0.0)])
def test_labels_are_smoothed_once(
    settings: dict[str, Any],
    smoothing: float,
    tiny_run: MakeRun,
    small_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = set()
    cross_entropy = torch.nn.functional.cross_entropy

    def noting(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        if logits.requires_grad:
            used.add(label_smoothing)
        return cross_entropy(logits, targets, label_smoothing=label_smoothing)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", noting)
    train(tiny_run(batch_size=64, epochs=1, **settings), tmp_path, data_root=small_images)
    assert used == {smoothing}


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_epochs": 0.0},
        {"warmup_epochs": 0.5, "warmup_lr": 1e-6, "min_lr": 1e-5},
        {"warmup_epochs": 0.33, "epochs": 1},
        {"schedule": "step", "warmup_epochs": 0.0, "decay_epochs": 1},
        {"schedule": "step", "warmup_epochs": 0.25, "decay_epochs": 0.34, "decay_rate": 0.5},
    ],
)
def test_the_learning_rate_follows_the_formula_at_every_step(
    settings: dict[str, Any], tiny_run: MakeRun, small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run(**settings)
    recipe, per_epoch = config.recipe, config.steps_per_epoch
    warmup, steps = recipe.warmup_epochs * per_epoch, recipe.epochs * per_epoch

    def formula(step: int) -> float:
        if step < warmup:
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * step / warmup
        if recipe.schedule == "step":
            return recipe.lr * recipe.decay_rate ** math.floor(step / (recipe.decay_epochs * per_epoch))
        wave = (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * wave

    used: list[set[float]] = []
    train_step = _Training.train_step

    def noting(self: _Training, images: Tensor, targets: Tensor) -> Tensor:
        used.append({group["lr"] for group in self.optimizer.param_groups})
        return train_step(self, images, targets)

    monkeypatch.setattr(_Training, "train_step", noting)
    train(config, tmp_path, data_root=small_images)
    assert all(len(rates) == 1 for rates in used)
    assert [rates.pop() for rates in used] == pytest.approx(
        [formula(step) for step in range(steps)], rel=1e-9, abs=1e-15
    )


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_spares_norms_and_biases_unless_asked(
    everywhere: bool,
    optimizer: str,
    tiny_run: MakeRun,
    small_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = replace(LAYER_NORM, block=replace(LAYER_NORM.block, layer_scale=1.0))
    config = tiny_run(net=net, optimizer=optimizer, decay_norms_and_biases=everywhere, weight_decay=0.05)
    decayed: dict[str, float] = {}

    def look(self: _Training, images: Tensor, targets: Tensor) -> Tensor:
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for group in self.optimizer.param_groups:
            decayed.update((names[parameter], group["weight_decay"]) for parameter in group["params"])
        raise Stopped

    monkeypatch.setattr(_Training, "train_step", look)
    with pytest.raises(Stopped):
        train(config, tmp_path, data_root=small_images)
    shapes = {name: p.ndim for name, p in build_model(net, num_classes=10, in_channels=1).named_parameters()}
    assert decayed == {name: 0.05 if everywhere or dims > 1 else 0.0 for name, dims in shapes.items()}


# -- metrics


def test_metrics_are_those_counted_by_hand() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6]])
    row = metrics(probabilities.log(), torch.tensor([0, 1, 1, 1]))
    assert row["top1"] == 75
    assert row["top5"] == 100
    assert row["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.2) + 2 * math.log(0.6)) / 4)
    # Two bins of two images: sure at 0.8 and half right, sure at 0.6 and all right.
    assert row["ece"] == pytest.approx(100 * (abs(0.5 - 0.8) + abs(1.0 - 0.6)) / 2)
    assert row["top1_per_class"] == pytest.approx([100, 200 / 3])
    assert row["test_images"] == 4


def test_top5_takes_the_fifth_guess_and_not_the_sixth() -> None:
    logits = torch.arange(8.0).repeat(2, 1)  # best guess: class 7
    row = metrics(logits, torch.tensor([3, 2]))
    assert (row["top1"], row["top5"]) == (0, 50)


def test_a_class_without_test_images_has_no_accuracy() -> None:
    row = metrics(torch.eye(3)[:2], torch.tensor([0, 1]))
    assert row["top1_per_class"] == [100, 100, None]


@pytest.mark.parametrize(("confidence", "expected"), [(1.0, 0.0), (0.5, 50.0)])
def test_calibration_counts_the_edges_of_its_bins(confidence: float, expected: float) -> None:
    logits = torch.tensor([[confidence, 1 - confidence]]).log().clamp(min=-1e4)
    assert metrics(logits, torch.tensor([0]))["ece"] == pytest.approx(expected)
