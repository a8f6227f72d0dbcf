"""What each rung costs in time and memory, measured side by side in one process: multiply-adds are not time.

Networks take turns (`roadmap.measuring.turns`). Images are noise that lies on the device already: loading and
augmentation are not measured.

runs/measured/ holds a file a measurement: when it was made, on what, with which code, and `rows`, for each network
under its recipe (`RunConfig.key`) what `Row` says.
"""

import os
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.machine import choose_device, count_cores
from roadmap.common.provenance import find_commit, gpu, processor
from roadmap.measuring.turns import Show, cpu_threads, show_nothing, take_turns
from roadmap.recipe import Recipe
from roadmap.study.plan import PlannedRun, Study

if TYPE_CHECKING:
    from roadmap.measuring.meter import Meter

FOLDER = "measured"
MEASURED_VERSION = 1
ROUNDS = 5
VISIT_S = 0.15  # of training, and of inference, in each round
BUDGET_S, PATIENCE_S = 30.0, 120.0  # at the end of a study's training: until no further round begins, until giving up
# A training step's peak memory is below this many bytes an activation of its batch on every rung of both ladders.
BYTES_PER_ACTIVATION = 20
BYTES_PER_PARAMETER = 16  # weight, gradient, two moments
MEMORY_SHARE = 0.7  # of what is free

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rounds = Annotated[list[Positive], Field(min_length=1)]


class Row(TypedDict):
    """A network in a measurement: each column with its meaning and unit."""

    rungs: Annotated[list[str], "the rungs that this network under this recipe is"]
    train_images_per_s: Annotated[
        Rounds, "training images per second (forward, loss, backward, optimizer step), one number a round"
    ]
    test_images_per_s: Annotated[Rounds, "images per second of inference, one number a round"]
    peak_memory_mb: Annotated[Positive, "most memory of tensors at any time of a training step, 1e6 bytes"]
    activations: Annotated[Positive, "outputs of convolutions and linear layers, for one image"]


def _same_rounds(row: Row) -> Row:
    if len(row["train_images_per_s"]) != len(row["test_images_per_s"]):
        raise ValueError("training and inference were measured in different rounds")
    return row


@with_config(ConfigDict(extra="allow"))
class Measured(TypedDict):
    """What a file of runs/measured/ holds, as far as it must; `measure` says the rest."""

    measured_version: Literal[1]
    rows: dict[str, Annotated[Row, AfterValidator(_same_rounds)]]


_MEASURED = TypeAdapter(Measured)


def measure(
    study: Study,
    *,
    rounds: int = ROUNDS,
    visit_s: float = VISIT_S,
    limit_s: float = float("inf"),
    device: str | None = None,
    threads: int | None = None,
    show: Show = show_nothing,
) -> dict[str, Any]:
    """Measure every network of a study under its recipe.

    All networks get batches of the study's recipe's size, also where the ladder's start trains with another, halved
    until a training step fits into the memory that is free. Inference batches are those of an evaluation.

    Args:
        study: Its rungs; the seeds do not matter.
        rounds: How often each network is visited.
        visit_s: About how long it trains, and infers, in a visit; never less than two steps.
        limit_s: When this time is over, no further round is begun. There is always one.
        device: "cpu" or "cuda"; None takes a GPU where there is one.
        threads: CPU threads; None takes the cores that we may use.
        show: Called before each visit with the number done, that of all, and what is at hand.

    Returns:
        The content of a file: `measured_version`, `at` (UTC), `device`, `threads`, `commit`, `versions`, `image_size`,
        `batch_size`, `test_batch_size`, `rows`.

    Raises:
        UserError: If the device's memory does not do.
    """
    import torch

    start = time.monotonic()
    device, threads = choose_device(device), threads or count_cores()
    runs = networks(study)
    batch_size, test_batch_size = _batch_sizes(study.recipe, runs, device)
    total = len(runs) * (1 + rounds)
    try:
        with cpu_threads(threads):
            meters = _build(runs, batch_size, test_batch_size, device, lambda done, what: show(done, total, what))
            speeds = take_turns(
                {key: partial(_visit, meter, visit_s) for key, meter in meters.items()},
                rounds,
                label={run.config.key: run.rungs[0] for run in runs}.__getitem__,
                show=lambda done, _, what: show(len(runs) + done, total, what),
                limit_s=limit_s - (time.monotonic() - start),
            )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the {device} device has no memory for batches of {batch_size} images and {len(runs)} networks. Measure "
            "fewer rungs (--only, --until), or with a recipe of a smaller batch_size."
        ) from error
    rows = {run.config.key: _row(run, meters[run.config.key], speeds[run.config.key]) for run in runs}
    sizes = {"image_size": study.recipe.image_size, "batch_size": batch_size, "test_batch_size": test_batch_size}
    return _provenance(device, threads) | sizes | {"rows": rows}


def _provenance(device: str, threads: int) -> dict[str, Any]:
    """Return when, where and by what a measurement is made."""
    return {
        "measured_version": MEASURED_VERSION,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": (gpu() if device == "cuda" else None) or processor(),
        "threads": threads,
        "commit": find_commit(),
        "versions": {name: version(name) for name in ("torch", "timm")},
    }


def _build(
    runs: Sequence[PlannedRun], batch_size: int, test_batch_size: int, device: str, show: Callable[[int, str], None]
) -> dict[str, "Meter"]:
    """Build every network, ready to be timed, and measure its memory."""
    from roadmap.measuring.meter import Meter, make_batches

    batches = make_batches(runs[0].config, batch_size, test_batch_size, device)
    meters: dict[str, Meter] = {}
    for run in runs:
        show(len(meters), f"{run.rungs[0]}: memory")
        meters[run.config.key] = Meter(run.config, batches)
    return meters


def _visit(meter: "Meter", visit_s: float) -> tuple[float, float]:
    """Return the images per second of training and of inference."""
    return meter.training_speed(visit_s), meter.test_speed(visit_s)


def _row(run: PlannedRun, meter: "Meter", speeds: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "rungs": list(run.rungs),
        "train_images_per_s": [training for training, _ in speeds],
        "test_images_per_s": [test for _, test in speeds],
        "peak_memory_mb": meter.peak_memory / 1e6,
        "activations": run.activations,
    }


def networks(study: Study) -> list[PlannedRun]:
    """Return one run for each different network and recipe of a study, in the ladder's order."""
    return [run for run in study.planned() if run.config.seed == study.seeds[0]]


def keys_of(study: Study) -> set[str]:
    """Return the names by which a study's networks and recipes stand in `rows`."""
    return {config.key for config in study.configs.values()}


def _batch_sizes(recipe: Recipe, runs: Sequence[PlannedRun], device: str) -> tuple[int, int]:
    """Return the sizes of batches for training, so that they fit, and for inference."""
    from roadmap.data.batches import TEST_BATCH

    room = MEMORY_SHARE * _free_memory(device) - BYTES_PER_PARAMETER * sum(run.params for run in runs)
    image = BYTES_PER_ACTIVATION * max(run.activations for run in runs)
    size = recipe.batch_size
    while size > 2 and size * image > room:
        size //= 2
    return size, TEST_BATCH if recipe.in_memory else min(recipe.batch_size, 256)


def _free_memory(device: str) -> float:
    """Return the free memory of a device, bytes; endless where the system does not tell."""
    if device != "cpu":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), float("inf"))


# -- files


def write_measured(runs: Path, measured: dict[str, Any]) -> Path:
    """Write a measurement beside the runs, and return where.

    Raises:
        Unwritable: If there is no room, or the folder is not ours.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}.json"
    files.write_json(runs / FOLDER / name, measured)
    return runs / FOLDER / name


def read_measured(runs: Path, keys: Collection[str]) -> dict[str, Any] | None:
    """Return the newest measurement that has rows for all of these networks, failing that, for most of them.

    Files that are damaged, of another version or something else are passed over.

    Args:
        runs: The runs folder.
        keys: Each network's `RunConfig.key`.

    Returns:
        What `measure` returned; None where nothing has a row for any of them.
    """
    best, most = None, 0
    try:
        names = sorted((name for name in os.listdir(runs / FOLDER) if name.endswith(".json")), reverse=True)
    except OSError:
        return None
    for name in names:
        if name.startswith("."):  # half-written
            continue
        try:
            content = cast(dict[str, Any] | None, files.read_as(runs / FOLDER / name, _MEASURED))
        except UserError:  # not ours to read
            continue
        if content is None:
            continue
        covered = len(set(keys) & content["rows"].keys())
        if covered > most:
            best, most = content, covered
        if covered == len(set(keys)):
            break
    return best
