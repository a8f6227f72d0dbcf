"""The run folder and what is written there: names, columns, units, atomic writes.

runs/<run id>/ holds
- run.json: the whole configuration, where and with what it was planned;
- metrics.jsonl: one line an epoch;
- progress.json: where the run stands, about once a second;
- checkpoint.pt: the last checkpoint, gone when the run is finished;
- model.safetensors: the trained weights;
- result.json: the outcome, one flat JSON row whose keys are `COLUMNS`.
"""

import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from roadmap.errors import UserError

RUN, METRICS, PROGRESS = "run.json", "metrics.jsonl", "progress.json"
CHECKPOINT, WEIGHTS, RESULT = "checkpoint.pt", "model.safetensors", "result.json"

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
    "images_seen": "training images that the run used, repeats counted",
    "test_images": "images that the accuracy is measured on",
    "error": "what went wrong, for a diverged or failed run; else null",
}

STATES = ("finished", "diverged", "failed")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader finds the old or the new content and never half of one, whatever is killed when.

    Raises:
        UserError: If the folder cannot be written or the disk is full; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path}: cannot be written ({error.strerror or error}). Nothing there was changed.") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what a killed writer left half-written in a run folder; for the run's holder alone."""
    for name in (METRICS, CHECKPOINT, WEIGHTS, RESULT):
        for left in folder.glob(f".{name}.*"):
            left.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    """Read JSON; None where the file is missing or unreadable as JSON (a machine that died while writing).

    Raises:
        UserError: If the file is there and cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result row of a run folder, or None where there is none (or only half of one) yet.

    Raises:
        UserError: If the row is of another version.
    """
    row = read_json(folder / RESULT)
    if row is None:
        return None
    if row.get("result_version") != RESULT_VERSION:
        raise UserError(
            f"{folder / RESULT}: result_version is {row.get('result_version')}, but this program reads "
            f"{RESULT_VERSION}. Read it with the version that wrote it, or move the folder away to have it run again."
        )
    return dict(row)


def is_done(folder: Path) -> bool:
    """Whether a run needs no more training: finished or diverged. A failed run is tried again."""
    row = read_result(folder)
    return row is not None and row["state"] in ("finished", "diverged")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs of a run so far; a last line that was cut off is left out."""
    try:
        lines = (folder / METRICS).read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
