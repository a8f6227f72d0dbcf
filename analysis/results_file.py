"""A file of anybody's results: CSV, a row a run. Whatever is wrong with it is said with its line and column."""

import csv
import io
import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.metrics import METRICS
from analysis.run_frames import IDENTITY
from roadmap.common.errors import UserError, unknown
from roadmap.common.yaml_files import read_yaml
from roadmap.runs import run_folder

DELIMITERS = ",;\t|"
MOST_BYTES = 200_000_000
MOST_ERRORS = 10  # that are listed
SMALLEST, LARGEST = 1e-30, 1e30  # that a value may be, so that sums of squares stay numbers
# The columns of a results.csv of our own that are no metrics.
OTHERS = {*IDENTITY, *run_folder.COLUMNS} - set(METRICS)


def read_results(path: Path, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a file of results.

    Args:
        path: CSV in UTF-8, its columns apart by commas, semicolons, tabs or bars: a header with rung, seed and one
            metric or more, then a row a run. An empty cell is a value that was not measured. Where a column state says
            that a run did not finish, its values do not count. A results.csv of a report can be read as it is.
        metrics: Which columns are metrics; None takes all that are not known to be something else.

    Returns:
        The columns rung and seed, and one a metric.

    Raises:
        UserError: If the file cannot be read, with every line and column that is wrong.
    """
    rows = _rows(path, _text(path))
    try:
        _, header = next(rows)
    except StopIteration:
        raise UserError(f"{path}: is empty. Its first line names the columns: rung,seed,top1.") from None
    names = _metric_columns(path, header, metrics)
    errors: list[str] = []
    read: list[tuple[str, int, list[float]]] = []
    lines: dict[tuple[str, int], int] = {}
    for line, row in rows:
        try:
            rung, seed, values = _run(header, row, names)
            if (first := lines.setdefault((rung, seed), line)) != line:
                raise UserError(f"rung '{rung}' has seed {seed} on line {first} already. Keep one row a run")
            read.append((rung, seed, values))
        except UserError as error:
            errors.append(f"{path}:{line}: {error}.")
    if errors:
        more = [f"... and {len(errors) - MOST_ERRORS:,} more lines."] if len(errors) > MOST_ERRORS else []
        raise UserError("\n".join(errors[:MOST_ERRORS] + more))
    if not read:
        raise UserError(f"{path}: has a header and no rows. Give it a row a run.")
    frame = pd.DataFrame([(rung, seed, *values) for rung, seed, values in read], columns=["rung", "seed", *names])
    unmeasured = [name for name in names if frame[name].isna().all()]
    if len(unmeasured) == len(names):
        raise UserError(f"{path}: no run has a value of {', '.join(names)}.")
    return frame.drop(columns=unmeasured)


def read_labels(path: Path) -> dict[str, str]:
    """Read what rungs are called: YAML, a line a rung (`rung: label`), in the order in which they are to stand.

    Raises:
        UserError: If the file cannot be read or is something else.
    """
    return read_yaml(path, dict[str, str], {"": ["the rungs, each with its label"]})


def _text(path: Path) -> str:
    """Return a file's text."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: is larger than {MOST_BYTES // 1_000_000} MB. A row a run is enough.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8. Save the file as CSV in UTF-8.") from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with its line; the header tells what its cells are apart by."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, [cell.strip() for cell in row]
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}. Mend it there.") from error


def _metric_columns(path: Path, header: list[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the columns that are metrics, having seen that those which every file needs are there."""
    for name in ("rung", "seed"):
        if name not in header:
            found = ", ".join(f"'{column}'" for column in header)
            raise UserError(f"{path}:1: no column '{name}'. Columns are rung, seed and metrics; found: {found}.")
    if odd := next((name for name in header if not _is_printable(name)), None):
        raise UserError(f"{path}:1: column {odd!r} has a control character in its name. Take it out.")
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UserError(f"{path}:1: column '{twice}' is there twice. Keep one.")
    known = [name for name in header if name and name not in OTHERS]
    for name in wanted or ():
        if name not in header or name in ("rung", "seed"):
            raise unknown("metric", name, known, place=f"{path}:1")
    if not (names := list(wanted or known)):
        raise UserError(f"{path}:1: no column is a metric. Beside rung and seed, give each run at least one number.")
    return names


def _run(header: list[str], row: list[str], names: list[str]) -> tuple[str, int, list[float]]:
    """Return a row's rung, seed and values, raising a `UserError` that says in which column it is wrong."""
    if len(row) != len(header):
        raise UserError(f"{len(row)} cells, but the header has {len(header)}")
    cells = dict(zip(header, row, strict=True))
    if not cells["rung"]:
        raise UserError("column 'rung' is empty. Name the rung")
    if not _is_printable(cells["rung"]):
        raise UserError(f"column 'rung': {cells['rung']!r} has a control character in it. Take it out")
    if not (cells["seed"].isascii() and cells["seed"].isdigit() and len(cells["seed"]) < 16):
        raise UserError(f"column 'seed': '{cells['seed']}' is not a whole number from 0 up")
    is_done = cells.get("state", "finished") in ("finished", "")
    return cells["rung"], int(cells["seed"]), [_number(name, cells[name]) if is_done else math.nan for name in names]


def _number(name: str, cell: str) -> float:
    """Return the value in a cell; NaN where it is empty."""
    if not cell:
        return math.nan
    try:
        value = float(cell.replace("_", "?"))  # Python takes 1_000 for a number
    except ValueError:
        hint = " Write decimals with a point" if cell.replace(",", "", 1).lstrip("+-").isdigit() else ""
        way = hint or " Leave the cell empty, or say with --metrics which columns are numbers"
        raise UserError(f"column '{name}': '{cell}' is not a number.{way}") from None
    if not math.isfinite(value):
        raise UserError(f"column '{name}': '{cell}' is no value. Leave the cell of a run that diverged empty")
    if value and not SMALLEST < abs(value) < LARGEST:
        raise UserError(f"column '{name}': '{cell}' is beyond what is judged, {SMALLEST:g} to {LARGEST:g}. Scale it")
    return value


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(letter) == "Cc" for letter in "".join(text.split()))
