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
- robustness.json: what was found of its robustness (`roadmap.robustness.settings`), where that was asked for.
"""

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from roadmap.common.errors import UserError
from roadmap.common.files import is_finite, read_object, write_atomically

RUN, METRICS, PROGRESS = "run.json", "metrics.jsonl", "progress.json"
WEIGHTS, EMA_WEIGHTS = "model.safetensors", "model_ema.safetensors"
PREDICTIONS, RESULT = "predictions.npy", "result.json"
ROBUSTNESS = "robustness.json"
RUN_NAME = re.compile(r"[0-9a-f]+-s(\d+)(?:-w[0-9a-f]+)?")  # a run folder's name, `RunConfig.id`

# The version of the row below; a result of another version is refused, not guessed at.
RESULT_VERSION = 1

# A result row: column -> meaning and unit.
COLUMNS = {
    "result_version": "version of this table",
    "state": "finished, diverged (non-finite loss) or failed (an exception)",
    "top1": "top-1 accuracy on the whole test set, percent",
    "top5": "top-5 accuracy on the whole test set, percent",
    "nll": "mean negative log-likelihood on the test set, nats",
    "ece": "expected calibration error on the test set, 15 equal bins of confidence, percent",
    "top1_per_class": "top-1 accuracy of each class, percent, in the order of `classes`",
    "classes": "names of the classes",
    "top1_ema": "top-1 accuracy of the moving average of the weights, percent; null without",
    "train_loss": "mean training loss of the last epoch",
    "images_per_s": "training images per second, evaluation and checkpoints not counted",
    "train_s": "seconds of training steps, over all attempts",
    "wall_s": "seconds from the start of the run to its result, over all attempts",
    "processes": "processes that trained it together; BatchNorm averages over each one's share unless synchronized",
    "images_seen": "training images that the run used, repeats counted",
    "test_images": "images that the accuracy is measured on",
    "error": "what went wrong, for a diverged or failed run; else null",
}

STATES = ("finished", "diverged", "failed")


def sweep(folder: Path) -> None:
    """Remove what a killed writer left half-written in a run folder; for the run's holder alone."""
    for name in (METRICS, "checkpoint", WEIGHTS, PREDICTIONS, RESULT):
        for left in folder.glob(f".{name}.*"):
            left.unlink(missing_ok=True)
    (folder / f".{PROGRESS}").unlink(missing_ok=True)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result row of a run folder, or None where there is none (or only half of one) yet.

    Raises:
        UserError: If the row is of another version.
    """
    row = read_object(folder / RESULT)
    if row is None:
        return None
    if row.get("result_version") != RESULT_VERSION:
        raise UserError(
            f"{folder / RESULT}: result_version is {row.get('result_version')}, but this program reads "
            f"{RESULT_VERSION}. Read it with the version that wrote it, or move the folder away to have it run again."
        )
    words = ("state", "error", "classes", "top1_per_class")
    numbers = [row.get(name) for name in COLUMNS if name not in words]
    said = row.get("error")
    whole = row.get("state") in STATES and all(n is None or isinstance(n, int | float) for n in numbers)
    if row.get("state") == "finished":
        whole = whole and all(n is None or is_finite(n) for n in numbers)
    if not whole or not (said is None or isinstance(said, str)):
        raise UserError(f"{folder / RESULT}: is no result row. Move the folder away to have the run again.")
    return dict.fromkeys(COLUMNS) | row


def write_predictions(folder: Path, predicted: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]]) -> None:
    """Write the class predicted for each test image and its label, both (N,), in the narrowest integers."""
    both = np.stack([predicted, labels])
    narrow = both.astype(np.min_scalar_type(both.max(initial=0)))
    write_atomically(folder / PREDICTIONS, lambda file: np.save(file, narrow, allow_pickle=False))


def read_right(folder: Path) -> NDArray[np.bool_] | None:
    """Return for each test image whether a run predicted its label, (N,); None where that is not known."""
    try:
        with (folder / PREDICTIONS).open("rb") as file:
            both = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile):  # missing, damaged or something else
        return None
    if not isinstance(both, np.ndarray) or both.ndim != 2 or len(both) != 2:
        return None
    right: NDArray[np.bool_] = both[0] == both[1]
    return right


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Return where a run stands, as it last said; None where it said nothing, or the file is damaged."""
    now = read_object(folder / PROGRESS) or {}
    numbers = (now.get(name) for name in ("step", "steps", "epoch", "epochs", "at"))
    whole = all(is_finite(number) for number in numbers) and now["steps"]
    may_be_null = ("train_loss", "images_per_s", "left_s")
    whole = whole and all(now.get(name) is None or is_finite(now[name]) for name in may_be_null)
    return dict.fromkeys(may_be_null) | now if whole and isinstance(now.get("state"), str) else None


def is_done(folder: Path) -> bool:
    """Whether a run needs no more training: finished or diverged. A failed run is tried again."""
    row = read_result(folder)
    return row is not None and row["state"] in ("finished", "diverged")


def seeds_with(name: str, runs: Path, keys: Collection[str]) -> set[int]:
    """Return the seeds of which some run has a file of that name.

    Args:
        name: A file of a run folder, such as `RESULT`.
        runs: The runs folder, which is listed once however many runs it holds.
        keys: `RunConfig.key` of the runs that are asked about.
    """
    try:
        folders = [entry for entry in os.scandir(runs) if entry.name.split("-")[0] in keys]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    named = {(entry, RUN_NAME.fullmatch(entry.name)) for entry in folders}
    return {int(match[1]) for entry, match in named if match and Path(entry.path, name).is_file()}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs of a run so far; a line that was cut off or is damaged is left out."""
    try:
        lines = (folder / METRICS).read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows
