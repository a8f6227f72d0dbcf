"""The run folder and what is written there: names, columns, units, atomic writes.

runs/<run id>/ holds
- run.json: the whole configuration, where and with what it was planned;
- metrics.jsonl: one line an epoch;
- progress.json: where the run stands, about once a second;
- checkpoint-*.pt: the last two checkpoints (`roadmap.training.checkpoints`), gone when the run is finished;
- attempts/: who works on it and who did (`roadmap.runs.attempts`);
- model.safetensors: the trained weights; model_ema.safetensors: their moving average, where the recipe has one;
- predictions.npy: the class predicted for each test image, and its label;
- result.json: the outcome, one flat JSON row whose keys are `COLUMNS`;
- robustness.json: what was found of its robustness (`roadmap.robustness.settings`), where that was asked for;
- robustness/attempts/: who evaluates that and who did;
- own_metrics/: what functions of a user's own measured of its network (`roadmap.runs.metrics`); attempts/: who does.
"""

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common.errors import UserError
from roadmap.common.files import NoRegularFile, is_finite, open_regular, read_as, read_object
from roadmap.runs.attempts import ATTEMPTS
from roadmap.runs.claims import Writer

RUN, METRICS, PROGRESS = "run.json", "metrics.jsonl", "progress.json"
WEIGHTS, EMA_WEIGHTS = "model.safetensors", "model_ema.safetensors"
PREDICTIONS, RESULT = "predictions.npy", "result.json"
ROBUSTNESS = "robustness.json"
ROBUSTNESS_CLAIMS = "robustness"
OWN_METRICS = "own_metrics"
RESULTS = (RESULT, OWN_METRICS)  # a backbone from other weights than its classifier's has the second alone
LEFT = re.compile(
    rf"\.({'|'.join(map(re.escape, (METRICS, WEIGHTS, EMA_WEIGHTS, PREDICTIONS, RESULT, ROBUSTNESS)))}|checkpoint)\.\w+"
    rf"|\.{re.escape(PROGRESS)}"
)
LEFT_AFTER_S = 3600.0
RUN_NAME = re.compile(r"[0-9a-f]+-s(\d+)(?:-w[0-9a-f]+)?")  # a run folder's name, `RunConfig.id`

# The version of the row below. A column that may be missing is no new version: rows without it, and with columns that
# this program does not know, are read. A result of another version is refused, not guessed at.
RESULT_VERSION = 1

State = Literal["finished", "diverged", "failed"]


@with_config(ConfigDict(extra="allow"))
class Result(TypedDict, total=False):
    """A result row: each column with its meaning and unit; null is not known."""

    result_version: Annotated[Required[int], "version of this table"]
    state: Annotated[Required[State], "finished, diverged (non-finite loss) or failed (an exception)"]
    top1: Annotated[float | None, "top-1 accuracy on the whole test set, percent"]
    top5: Annotated[float | None, "top-5 accuracy on the whole test set, percent"]
    nll: Annotated[float | None, "mean negative log-likelihood on the test set, nats"]
    ece: Annotated[float | None, "expected calibration error on the test set, 15 equal bins of confidence, percent"]
    top1_per_class: Annotated[
        list[float | None] | None, "top-1 accuracy of each class, percent, in the order of `classes`"
    ]
    classes: Annotated[list[str] | None, "names of the classes"]
    top1_ema: Annotated[float | None, "top-1 accuracy of the moving average of the weights, percent; null without"]
    train_loss: Annotated[float | None, "mean training loss of the last epoch"]
    images_per_s: Annotated[float | None, "training images per second, evaluation and checkpoints not counted"]
    train_s: Annotated[float | None, "seconds of training steps, over all attempts"]
    wall_s: Annotated[float | None, "seconds from the start of the run to its result, over all attempts"]
    processes: Annotated[
        int | None,
        "processes that trained it together; BatchNorm averages over each one's share unless synchronized "
        "or in ghost batches",
    ]
    threads: Annotated[int | None, "CPU threads of each process; on a CPU another number rounds differently"]
    images_seen: Annotated[int | None, "training images that the run used, repeats counted"]
    test_images: Annotated[int | None, "images that the accuracy is measured on"]
    error: Annotated[str | None, "what went wrong, for a diverged or failed run; else null"]


PERCENTAGES = ("top1", "top5", "ece", "top1_ema")
COLUMNS: dict[str, str] = {name: kind.__metadata__[0] for name, kind in Result.__annotations__.items()}

Finite = Annotated[float, Field(gt=-1e18, lt=1e18)]  # a number to go on with
Count = Annotated[int, Field(ge=0, lt=10**18)]


@with_config(ConfigDict(extra="allow"))
class Progress(TypedDict):
    """Where a run stands, as it last said."""

    state: str
    epoch: Count
    epochs: Count
    step: Count
    steps: Annotated[Count, Field(gt=0)]
    at: Finite
    train_loss: NotRequired[Finite | None]
    images_per_s: NotRequired[Finite | None]
    left_s: NotRequired[Finite | None]


_RESULT, _PROGRESS = TypeAdapter(Result), TypeAdapter(Progress)


def sweep(writer: Writer) -> None:
    """Remove what killed processes left: files that are half-written, and the checkpoints of a run that is done.

    A run.json may be just being written by somebody who has no claim, so only an old one is taken for left.

    Raises:
        Lost: If the run is another's.
    """
    for path in writer.folder.glob("checkpoint-*.pt") if is_done(writer.folder) else ():
        writer.remove(path)
    for path in writer.folder.glob(".*"):
        is_old = path.name.startswith(f".{RUN}.") and writer.age_s(path) > LEFT_AFTER_S
        if is_old or LEFT.fullmatch(path.name):
            writer.remove(path)


def has_litter(folder: Path) -> bool:
    """Whether a run that is done has something to sweep."""
    try:
        names = os.listdir(folder)
        left = os.listdir(folder / ATTEMPTS)
    except OSError:
        return False
    return any(name.startswith((".", "checkpoint-")) for name in names) or any(
        name[:1] == "." or name.endswith(".work") for name in left
    )


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result row of a run folder, or None where there is none (or only half of one) yet.

    Raises:
        UserError: If the row is of another version.
    """
    path = folder / RESULT
    row: Mapping[str, Any] | None = read_as(path, _RESULT)
    found = row or read_object(path)
    if found is None:
        return None
    if found.get("result_version") != RESULT_VERSION:
        raise UserError(
            f"{path}: result_version is {found.get('result_version')}, but this program reads {RESULT_VERSION}. Read "
            "it with the version that wrote it, or move the folder away to have it run again."
        )
    if row is None or (row["state"] == "finished" and not _is_possible(row)):
        raise UserError(f"{path}: is no result row. Move the folder away to have the run again.")
    return dict.fromkeys(COLUMNS) | dict(row)


def write_result(writer: Writer, row: Mapping[str, Any]) -> None:
    """Write a run's result row; one of a finished or diverged run is never replaced.

    Raises:
        Lost: If the run is another's.
        Unwritable: If the folder cannot be written or the disk is full.
    """
    if not is_done(writer.folder):
        writer.write_json(writer.folder / RESULT, row)


def _is_possible(row: Mapping[str, Any]) -> bool:
    """Whether a finished run may have such a row: an accuracy, percentages up to 100, and no number below zero."""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    per_class = [value for value in row.get("top1_per_class") or () if value is not None]
    percentages = [*per_class, *(numbers[name] for name in PERCENTAGES if name in numbers)]
    return (
        ("top1" in numbers or numbers.get("test_images") == 0)  # a study without test images
        and all(map(is_finite, [*numbers.values(), *per_class]))
        and all(0 <= value < 100.001 for value in percentages)  # sums are rounded
        and all(value >= 0 for name, value in numbers.items() if name in COLUMNS)
    )


def write_predictions(writer: Writer, predicted: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]]) -> None:
    """Write the class predicted for each test image and its label, both (N,), in the narrowest integers."""
    both = np.stack([predicted, labels])
    narrow = both.astype(np.min_scalar_type(both.max(initial=0)))
    writer.write(writer.folder / PREDICTIONS, lambda file: np.save(file, narrow, allow_pickle=False))


def read_right(folder: Path) -> NDArray[np.bool_] | None:
    """Return for each test image whether a run predicted its label, (N,); None where that is not known."""
    try:
        with open_regular(folder / PREDICTIONS) as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                return None
            # Mapped, so that a head which promises terabytes is held against the size of the file.
            both = np.load(folder / PREDICTIONS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, damaged or something else
        return None
    if not isinstance(both, np.ndarray) or both.ndim != 2 or len(both) != 2:
        return None
    right: NDArray[np.bool_] = both[0] == both[1]
    return right


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Return where a run stands, as it last said; None where it said nothing, or the file is damaged."""
    now = read_as(folder / PROGRESS, _PROGRESS)
    return None if now is None else dict.fromkeys(("train_loss", "images_per_s", "left_s")) | dict(now)


def is_done(folder: Path) -> bool:
    """Whether a run needs no more training: finished or diverged. A failed run is tried again."""
    row = read_result(folder)
    return row is not None and row["state"] in ("finished", "diverged")


def is_finished(folder: Path) -> bool:
    """Whether a run was trained to its end; one whose result is damaged was not."""
    try:
        return (read_result(folder) or {}).get("state") == "finished"
    except UserError:
        return False


def has_results(folder: Path) -> bool:
    """Whether there is anything of a run to show: it is done, or something was measured of its network."""
    return is_done(folder) or (folder / OWN_METRICS).is_dir()


def seeds_with(name: str, runs: Path, keys: Collection[str]) -> set[int]:
    """Return the seeds of which some run has a file or folder of that name.

    Args:
        name: What a run folder may hold, such as `RESULT`.
        runs: The runs folder, which is listed once however many runs it holds.
        keys: `RunConfig.key` of the runs that are asked about.
    """
    try:
        folders = [entry for entry in os.scandir(runs) if entry.name.split("-")[0] in keys]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    named = {(entry, RUN_NAME.fullmatch(entry.name)) for entry in folders}
    return {int(match[1]) for entry, match in named if match and Path(entry.path, name).exists()}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs of a run so far; a line that was cut off or is damaged is left out."""
    try:
        with open_regular(folder / METRICS) as file:
            lines = file.read().decode(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError, NoRegularFile):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # ValueError: also a number of thousands of digits
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows
