"""Several processes that train one run together: real ones, which find each other as torchrun's do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from roadmap import build_model
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE, Group, join
from roadmap.common.seeding import seed_step
from roadmap.data import batches
from roadmap.data.batches import load_data
from roadmap.data.datasets import EMBEDDED, IDX_FILES, describe_data, load_arrays
from roadmap.data.folders import Training
from roadmap.data.idx import find_idx, read_idx, write_idx
from roadmap.jobs.worker import START_AGAIN, Job
from roadmap.recipe import Recipe
from roadmap.runs import run_folder
from roadmap.runs.attempts import attempts_of
from roadmap.runs.config import RunConfig
from roadmap.training import loop as train_module
from roadmap.training.evaluation import metrics, predict
from roadmap.training.loop import Stopped, _Training, train
from roadmap.training.parallel import SharedBatchNorm
from tests.conftest import NET, TEST_IMAGES, TINY, TRAIN_IMAGES
from tests.processes import ROOT, Command, Left, fork, outcome
from tests.samples import ALL_AUGMENTATION, LAYER_NORM, SHORT_LADDER
from tests.slurm import free_ports

MakeRun = Callable[..., RunConfig]
TIMEOUT_S = 120.0
EVERYTHING = ALL_AUGMENTATION | {"drop_path": 0.3, "clip_grad": 1.0}


# -- processes


def start_together(size: int, target: Callable[..., None], *args: Any, **env: str) -> list[ForkServerProcess]:
    """Start a function in several processes whose environment is as torchrun sets it."""
    (port,) = free_ports(1)  # one that no outgoing connection takes meanwhile
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    env = found | {"TORCHELASTIC_RUN_ID": "test"} | env
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size))
    return [fork(_with_environment, env | rank, target, *args) for rank in ranks]


def _with_environment(env: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    os.environ.update(env)
    target(*args)


def wait_for_all(processes: list[ForkServerProcess]) -> list[int | None]:
    """Return the exit codes of processes; None for one that hangs."""
    deadline = time.monotonic() + TIMEOUT_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def train_together(size: int, config: RunConfig, folder: Path, root: Path, stop_after: int = 0) -> list[int | None]:
    """Train in so many processes; the folder is rank 0's, the others get folders beside it."""
    for rank in range(size):
        _folder_of(folder, rank).mkdir(parents=True, exist_ok=True)
    return wait_for_all(start_together(size, _train, config, folder, root, stop_after))


def _folder_of(folder: Path, rank: int) -> Path:
    return folder.with_name(f"{folder.name}-{rank}") if rank else folder


def _train(config: RunConfig, folder: Path, root: Path, stop_after: int, look_every_s: float = 0.0) -> None:
    """Train as a member of a group; stopped, exit with the number of steps taken as the exit code."""
    taken = 0
    step = _Training.train_step

    def counting(self: _Training, images: Tensor, targets: Tensor) -> Tensor:
        nonlocal taken
        taken += 1
        return step(self, images, targets)

    _Training.train_step = counting  # type: ignore[method-assign]
    with join() as group:
        train_module.LOOK_EVERY_S = look_every_s
        asked = lambda: "stop" if group.rank == 0 and taken == stop_after else ""  # noqa: E731
        try:
            train(config, _folder_of(folder, group.rank), data_root=root, asked=asked, group=group)
        except Stopped:
            sys.exit(taken)


# -- shares


@pytest.mark.parametrize(("batch", "size"), [(8, 1), (8, 2), (8, 4), (24, 3), (128, 2)])
def test_shares_of_a_batch_are_disjoint_and_whole_together_and_keep_the_pairs_that_mixup_mixes(
    batch: int, size: int
) -> None:
    shares = [Group(rank, size).share(batch) for rank in range(size)]
    assert torch.cat(shares).sort().values.tolist() == list(range(batch))
    for share in shares:
        assert len(share) == batch // size
        assert torch.equal(share + share.flip(0), torch.full((batch // size,), batch - 1))


def test_a_piece_of_a_batch_that_has_no_pairs_for_all_is_shared_out_all_the_same() -> None:
    assert [Group(rank, 2).share(6).tolist() for rank in range(2)] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("batch", "ghost_batch", "size"), [(24, 4, 1), (24, 4, 3), (4096, 128, 8)])
def test_ghost_batches_are_shared_out_whole_and_in_order(batch: int, ghost_batch: int, size: int) -> None:
    groups = [Group(rank, size) for rank in range(size)]
    shares = [group.share(batch, ghost_batch) for group in groups]
    assert torch.cat(shares).tolist() == list(range(batch))
    assert [int(share[0]) // ghost_batch for share in shares] == [g.first_ghost(batch, ghost_batch) for g in groups]


def batches_of(config: RunConfig, root: Path, group: Group = ALONE, *, workers: int = 1, start: int = 0) -> Any:
    """Return (images, targets) of the second epoch from a step on, and of the test set."""
    data = load_data(config, root, "cpu", workers, group)
    return [[(x.clone(), y.clone()) for x, y in part] for part in (data.epoch(1, start), data.test())]


def put_together(parts: list[Any], recipe: Recipe) -> list[tuple[Tensor, Tensor]]:
    """Return the batches that the processes' shares are of."""
    groups = [Group(rank, len(parts)) for rank in range(len(parts))]
    order = torch.cat([group.share(recipe.batch_size, recipe.ghost_batch) for group in groups]).argsort()
    return [tuple(torch.cat(both)[order] for both in zip(*shares, strict=True)) for shares in zip(*parts, strict=True)]


def interleave(parts: list[Any]) -> list[Tensor]:
    """Return (images, labels) of the test set from what each process sees of it."""
    whole = [torch.cat(kind) for kind in zip(*(batch for part in parts for batch in part), strict=True)]
    numbers = [range(rank, len(whole[0]), len(parts)) for rank in range(len(parts))]
    return [kind[torch.tensor([n for ours in numbers for n in ours]).argsort()] for kind in whole]


def same(one: Iterable[Iterable[Tensor]], other: Iterable[Iterable[Tensor]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize(
    "settings", [{}, EVERYTHING, EVERYTHING | {"ghost_batch": 8}], ids=["plain", "everything", "ghost_batches"]
)
@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_out_the_very_batches_of_one_alone(
    size: int, settings: dict[str, Any], tiny_run: MakeRun, small_images: Path
) -> None:
    config = tiny_run(**settings)
    alone, test = batches_of(config, small_images)
    parts = [batches_of(config, small_images, Group(rank, size)) for rank in range(size)]
    assert len(alone) == 10
    assert same(put_together([part[0] for part in parts], config.recipe), alone)
    assert same([interleave([part[1] for part in parts])], test)


@pytest.fixture(scope="module", params=[None, 4], ids=["whole_batches", "ghost_batches"])
def folder_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    """A run on an image folder with all its augmentation on: 24 images to train on and 7 for the test."""
    root, arrays = tmp_path_factory.mktemp("images"), load_arrays("fashion_mnist_part")
    for label in (0, 1):
        for number, image in enumerate(arrays.train[arrays.train_labels == label][: 16 - label]):
            folder = root / ("train" if number < 12 else "val") / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{number}.png")
    settings = {"dataset": "folder", "batch_size": 8, "hflip": 0.5, "random_resized_crop": 0.5, "mixup": 0.8}
    settings["ghost_batch"] = request.param
    recipe = Recipe(**TINY | settings | {"randaugment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5, "cutmix": 1.0})
    return RunConfig(NET, recipe, describe_data(recipe, root), 0), root


FOLDER_WAYS: dict[str, dict[str, Any]] = {
    "alone": {},
    "resumed": {"start": 1, "workers": 3},
    **{f"{rank} of 2": {"group": Group(rank, 2), "workers": 1 + rank} for rank in range(2)},
}


def test_images_of_a_folder_depend_on_neither_workers_nor_processes_nor_where_the_epoch_was_resumed(
    folder_run: tuple[RunConfig, Path], tmp_path: Path
) -> None:
    assert wait_for_all([fork(_save_folder_batches, *folder_run, tmp_path / "seen")]) == [0]
    seen = torch.load(tmp_path / "seen")
    train, test = seen["alone"]
    assert len(train) == 3
    assert sum(len(labels) for _, labels in test) == 7
    assert same(seen["resumed"][0], train[1:])
    parts = [seen[f"{rank} of 2"] for rank in range(2)]
    assert same(put_together([part[0] for part in parts], folder_run[0].recipe), train)
    assert same([interleave([part[1] for part in parts])], test)


def _save_folder_batches(config: RunConfig, root: Path, path: Path) -> None:
    torch.save({name: batches_of(config, root, **how) for name, how in FOLDER_WAYS.items()}, path)


def test_every_image_of_a_folder_is_augmented_in_its_own_way_in_every_epoch_under_every_seed() -> None:
    recipe = Recipe(**TINY | {"dataset": "folder", "random_resized_crop": 0.5, "random_erasing": 1.0})
    image = torch.randint(256, (3, 48, 64), dtype=torch.uint8)
    samples = [
        Training(recipe, seed)(image, 0, epoch, number) for seed in (0, 1) for epoch in (0, 1) for number in (0, 1)
    ]
    assert len({sample.pixels.numpy().tobytes() for sample in samples}) == 8
    assert len({int(sample.erased[-1]) for sample in samples}) == 8


def test_a_batch_that_cannot_be_shared_out_in_pairs_is_refused(tiny_run: MakeRun, small_images: Path) -> None:
    load_data(tiny_run(batch_size=12), small_images, "cpu", group=Group(0, 3))
    with pytest.raises(
        UserError, match=r"batch_size is 12, but 4 processes \(.*\) share it out in pairs\. Use a multiple of 8"
    ):
        load_data(tiny_run(batch_size=12), small_images, "cpu", group=Group(0, 4))


def test_ghost_batches_that_would_not_stay_whole_are_refused(tiny_run: MakeRun, small_images: Path) -> None:
    config = tiny_run(ghost_batch=8)
    load_data(config, small_images, "cpu", group=Group(0, 4))
    with pytest.raises(
        UserError,
        match=r"made of 4 ghost batches of 8 images, which 8 processes \(.*\) cannot share out whole\. Use a ",
    ):
        load_data(config, small_images, "cpu", group=Group(0, 8))


# -- the test set


def save_images(folder: Path, test_images: int) -> None:
    folder.mkdir()
    for name in IDX_FILES:
        count = TRAIN_IMAGES if name.startswith("train") else test_images
        (folder / f"{name}-ubyte").write_bytes(write_idx(read_idx(find_idx(EMBEDDED, name))[:count]))


@pytest.mark.parametrize(("size", "images"), [(3, 200), (2, 201), (3, 2)])
def test_every_test_image_counts_once_and_in_order(size: int, images: int, tmp_path: Path) -> None:
    save_images(tmp_path / "images", images)
    recipe = Recipe(**TINY | {"batch_size": 12})
    config = RunConfig(NET, recipe, describe_data(recipe, tmp_path / "images"), 0)
    _predict(config, tmp_path)
    logits, labels = torch.load(tmp_path / "1-0")
    assert wait_for_all(start_together(size, _predict, config, tmp_path)) == [0] * size
    for rank in range(size):
        together = torch.load(tmp_path / f"{size}-{rank}")
        assert torch.equal(together[1], labels)
        torch.testing.assert_close(together[0], logits)


def _predict(config: RunConfig, folder: Path) -> None:
    batches.TEST_BATCH = 32
    with join() as group:
        data = load_data(config, folder / "images", "cpu", group=group)
        torch.manual_seed(0)
        model = build_model(config.net, num_classes=10, in_channels=1)
        parts = predict(model, data, "cpu")
        torch.save([group.interleave(part) for part in parts], folder / f"{group.size}-{group.rank}")


# -- one process and several


@pytest.mark.parametrize(
    ("settings", "sizes", "tolerance"),
    [
        ({"net": LAYER_NORM}, (2, 4), 1e-3),
        # Pieces of 5 images, or of 3 and 2: what is drawn for the blocks of a piece does depend on the pieces.
        ({"net": LAYER_NORM, "batch_size": 20, "accumulate": 4, "drop_path": 0.0}, (2,), 1e-3),
        ({"ghost_batch": 16}, (2, 4), 1e-4),
        ({"sync_batch_norm": True}, (2,), 0.1),
        ({}, (2,), None),
    ],
    ids=["layer_norm", "unequal_pieces", "ghost_batches", "sync_batch_norm", "batch_norm"],
)
def test_one_process_and_several_train_the_same_unless_batch_norm_averages_over_shares(
    settings: dict[str, Any],
    sizes: tuple[int, ...],
    tolerance: float | None,
    tiny_run: MakeRun,
    small_images: Path,
    tmp_path: Path,
) -> None:
    # Few and small steps, for training amplifies rounding; torch's own BatchNorm is four digits good on a CPU.
    config = tiny_run(**{"batch_size": 64} | EVERYTHING | settings, optimizer="sgd", lr=2e-3, epochs=1)
    for size in (1, *sizes):
        assert train_together(size, config, tmp_path / f"{size}", small_images) == [0] * size
    seed_step(config.seed, -1 % 2**32)
    start = build_model(config.net, num_classes=10, in_channels=1).state_dict()
    weights, epochs, row = left_in(tmp_path / "1")
    for size in sizes:
        weights_together, epochs_together, row_together = left_in(tmp_path / f"{size}")
        assert row_together["processes"] == size
        assert [row_together[name] for name in ("images_seen", "test_images")] == [TRAIN_IMAGES, TEST_IMAGES]
        assert epochs_together[0]["lr"] == epochs[0]["lr"]
        apart = distance(weights, weights_together) / distance(weights, start)
        if tolerance is None:
            assert apart > 0.5
        else:
            assert apart < tolerance
            assert row_together["train_loss"] == pytest.approx(row["train_loss"], abs=1e-5)
            assert row_together["nll"] == pytest.approx(row["nll"], abs=1e-5)


def left_in(folder: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]], dict[str, Any]]:
    row = run_folder.read_result(folder)
    assert row is not None
    return load_file(folder / run_folder.WEIGHTS), run_folder.read_metrics(folder), row


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return how far apart two networks' parameters are."""
    names = [name for name in one if "running" not in name and "num_batches" not in name]
    return torch.stack([(one[name] - other[name]).norm() for name in names]).norm().item()


def test_shared_batch_norm_computes_what_batch_norm_does_with_the_whole_batch() -> None:
    assert wait_for_all(start_together(4, _compare_batch_norms)) == [0] * 4


def _compare_batch_norms() -> None:
    with join() as group:
        torch.manual_seed(0)
        images, targets = torch.randn(2, 16, 3, 4, 4, dtype=torch.double)
        whole, shared = (
            nn.Sequential(nn.Conv2d(3, 3, 3), norm(3)).double() for norm in (nn.BatchNorm2d, SharedBatchNorm)
        )
        shared.load_state_dict(whole.state_dict())
        shared[1].group = group
        parallel = nn.parallel.DistributedDataParallel(shared)
        share = group.share(16)
        for model, ours in ((whole, slice(None)), (parallel, share)):
            (model(images[ours]).relu() - targets[ours, :, :2, :2]).square().mean().backward()
        for a, b in zip(whole.parameters(), shared.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(dict(whole.named_buffers()), dict(shared.named_buffers()))
        with torch.autocast("cpu", torch.bfloat16):
            assert shared.float()(images[share].float()).dtype == whole.float()(images.float()).dtype == torch.bfloat16
        assert shared.eval()(images[:1].float()).shape == (1, 3, 2, 2)


# -- stopped and resumed


@pytest.fixture(scope="module")
def config(tiny_run: MakeRun) -> RunConfig:
    """A run of ten steps with a network whose BatchNorm averages over shares, unless told otherwise."""
    return tiny_run(**EVERYTHING, batch_size=60)


@pytest.fixture(scope="module")
def pair_folder(config: RunConfig, small_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run trained by two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    assert train_together(2, config, folder, small_images) == [0, 0]
    assert list(_folder_of(folder, 1).iterdir()) == []  # rank 0 alone writes
    return folder


@pytest.fixture(scope="module")
def pair(pair_folder: Path) -> Left:
    """What it leaves."""
    return outcome(pair_folder)


def test_processes_measure_the_very_network_that_they_leave(
    config: RunConfig, small_images: Path, pair_folder: Path
) -> None:
    weights, _, row = left_in(pair_folder)
    model = build_model(config.net, num_classes=10, in_channels=1)
    model.load_state_dict(weights)
    alone = metrics(*predict(model, load_data(config, small_images, "cpu"), "cpu"))
    assert row["nll"] == pytest.approx(alone["nll"], abs=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_stop_at_the_same_step_and_end_bit_for_bit_as_if_they_never_had(
    size: int, config: RunConfig, small_images: Path, tmp_path: Path, pair: Left
) -> None:
    folder = tmp_path / "run"
    assert train_together(size, config, folder, small_images, stop_after=3) == [3] * size
    assert [path.name[:20] for path in folder.glob("*.pt")] == ["checkpoint-000000003"]
    assert list(_folder_of(folder, 1).iterdir()) == []  # rank 0 alone saves
    assert train_together(size, config, folder, small_images, stop_after=4) == [4] * size
    assert train_together(size, config, folder, small_images) == [0] * size
    if size > 2:
        train_together(size, config, tmp_path / "undisturbed", small_images)
    assert outcome(folder) == (pair if size == 2 else outcome(tmp_path / "undisturbed"))


def test_processes_that_look_up_seldom_look_up_at_the_same_step(
    config: RunConfig, small_images: Path, tmp_path: Path, pair: Left
) -> None:
    folder = tmp_path / "run"
    for rank in range(2):
        _folder_of(folder, rank).mkdir()
    assert wait_for_all(start_together(2, _train, config, folder, small_images, 0, 0.05)) == [0, 0]
    assert outcome(folder) == pair


@pytest.mark.parametrize(
    ("settings", "goes_on"),
    [({}, False), ({"sync_batch_norm": True}, True), ({"ghost_batch": 16}, True), ({"net": LAYER_NORM}, True)],
    ids=["batch_norm", "sync_batch_norm", "ghost_batches", "layer_norm"],
)
def test_another_number_of_processes_goes_on_unless_batch_norm_averages_over_shares(
    settings: dict[str, Any], goes_on: bool, tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    config = tiny_run(**settings, optimizer="sgd", lr=2e-3, epochs=1, batch_size=64)
    assert train_together(2, config, tmp_path / "run", small_images, stop_after=3) == [3, 3]
    if not goes_on:
        with pytest.raises(UserError, match="trained by 2 processes, now there are 1, and BatchNorm would average"):
            train(config, tmp_path / "run", data_root=small_images)
        assert list((tmp_path / "run").glob("*.pt"))
        return
    row = train(config, tmp_path / "run", data_root=small_images)
    (tmp_path / "alone").mkdir()
    assert row["nll"] == pytest.approx(train(config, tmp_path / "alone", data_root=small_images)["nll"], abs=1e-5)


# -- what can happen to one of them


def job_folder(config: RunConfig, tmp_path: Path) -> Path:
    folder = tmp_path / config.id
    folder.mkdir()
    files.write_json(folder / run_folder.RUN, {"config": config.to_json()})
    return folder


def _work(folder: Path, root: Path, harm: Callable[[], None] | None = None, rank: int = 0, moment: str = "") -> None:
    """Do a job's work; one of the processes comes to harm when it begins to load the data, or takes the fifth step."""
    train_module.LOOK_EVERY_S = 0.0
    if harm and os.environ["RANK"] == str(rank):
        where, after = (train_module, 0) if moment == "load_data" else (_Training, 4)
        calls, function = iter(range(100)), getattr(where, moment)

        def harmed(*args: Any, **options: Any) -> Any:
            if next(calls) == after:
                harm()
            return function(*args, **options)

        setattr(where, moment, harmed)
    Job((folder,), root, launch="test", save_every_s=0.0)()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise ValueError("image 7 is damaged")


@pytest.mark.parametrize("moment", ["load_data", "train_step"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_takes_the_other_along_and_the_next_start_goes_on(
    rank: int, moment: str, config: RunConfig, small_images: Path, tmp_path: Path, pair: Left
) -> None:
    folder = job_folder(config, tmp_path)
    codes = wait_for_all(start_together(2, _work, folder, small_images, _kill, rank, moment))
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == (1 if rank == 0 else START_AGAIN)
    assert [attempt.end for attempt in attempts_of(folder)] == [None if rank == 0 else "died"]
    assert run_folder.read_result(folder) is None
    assert bool(list(folder.glob("*.pt"))) == (moment == "train_step")
    assert wait_for_all(start_together(2, _work, folder, small_images)) == [0, 0]
    assert [attempt.end for attempt in attempts_of(folder)] == ["died", "finished"]
    assert outcome(folder) == pair


@pytest.mark.parametrize("moment", ["load_data", "train_step"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_fails_with_the_error_of_the_process_that_had_one(
    rank: int, moment: str, config: RunConfig, small_images: Path, tmp_path: Path
) -> None:
    folder = job_folder(config, tmp_path)
    codes = wait_for_all(start_together(2, _work, folder, small_images, _raise, rank, moment))
    assert codes == [START_AGAIN, 1]
    row = run_folder.read_result(folder)
    assert row is not None
    assert row["state"] == "failed"
    assert (
        row["error"] == ("ValueError" if rank == 0 else "RuntimeError: process 1: ValueError") + ": image 7 is damaged"
    )
    assert [attempt.end for attempt in attempts_of(folder)] == ["failed"]


def test_torchrun_starting_processes_anew_leaves_nothing_of_the_last_start_in_the_way(
    config: RunConfig, small_images: Path, tmp_path: Path, pair: Left
) -> None:
    folder = job_folder(config, tmp_path)
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = {"MASTER_PORT": str(agent.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    start = partial(start_together, 2, _work, folder, small_images)
    assert wait_for_all(start(_raise, 1, "train_step", **env)) == [START_AGAIN, 1]
    (folder / run_folder.RESULT).unlink()
    assert wait_for_all(start(_kill, 1, "train_step", **env, TORCHELASTIC_RESTART_COUNT="1")) == [START_AGAIN, -9]
    assert run_folder.read_result(folder) is None
    assert wait_for_all(start(**env, TORCHELASTIC_RESTART_COUNT="2")) == [0, 0]
    assert outcome(folder) == pair


# -- the command line


@pytest.fixture
def options(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> list[str]:
    """Options for one rung of a ladder."""
    (tmp_path / "steps.yaml").write_text(SHORT_LADDER)
    recipe = write_recipes(width_divisor=16, epochs=1)
    words = ["--steps", tmp_path / "steps.yaml", "--base", "resnet50", "--recipe", recipe, "--data", small_images]
    return [*map(str, words), "--only", "short", "--jobs", "1"]


def only_run(runs: Path) -> Path:
    (path,) = runs.glob(f"*/{run_folder.RUN}")
    return path.parent


@pytest.mark.slow
def test_local_jobs_of_several_processes_train_a_ladder(options: list[str], small_images: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("tasks_per_node: 2\n")
    ended = Command(tmp_path / "work", *options, "--cluster", str(tmp_path / "cluster.yaml"), cores=2).wait()
    assert (ended.code, ended.err) == (0, "")
    assert "1 of 1 runs done" in ended.out
    folder = only_run(tmp_path / "work" / "runs")
    config = RunConfig.from_json(files.read_json(folder / run_folder.RUN)["config"])
    assert train_together(2, config, tmp_path / "undisturbed", small_images) == [0, 0]
    assert outcome(folder) == outcome(tmp_path / "undisturbed")
    assert outcome(folder)[-1]["processes"] == 2


@pytest.mark.slow
def test_torchrun_trains_a_ladder_with_its_processes_and_the_first_one_speaks(
    options: list[str], tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(ROOT / "run_ladder.py"), *options, "--executor", "debug"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("1 of 1 runs done") == ended.stdout.count("1 to do") == 1
    row = run_folder.read_result(only_run(tmp_path / "runs"))
    assert row is not None
    assert (row["state"], row["processes"]) == ("finished", 2)


def test_a_ladder_whose_batches_cannot_be_shared_out_is_refused_before_anything_is_written(
    options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text("tasks_per_node: 3\n")
    ended = Command(tmp_path / "work", *options, "--cluster", str(tmp_path / "cluster.yaml"), cores=3).wait()
    assert ended.code == 2
    assert "batch_size is 32, but 3 processes (nodes x tasks_per_node) share it out in pairs" in ended.err
    assert list((tmp_path / "work").iterdir()) == []
