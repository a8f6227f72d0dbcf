"""What commands print: tables for reading, JSON for programs, lines as they are."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from roadmap.study.plan import Study


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    wrapped: Collection[str] = (),
    colours: Mapping[str, str] | None = None,
    tight: bool = False,
) -> Table:
    """Return a table without lines, of texts that are printed as they are.

    Args:
        columns: Headings.
        rows: A cell for each column.
        numbers: The columns that stand to the right.
        wrapped: The columns whose cells may take several lines where the terminal is narrow.
        colours: Cells of this text are in this colour.
        tight: Whether columns stand close together.
    """
    table = Table(box=None, pad_edge=False, collapse_padding=tight)
    for name in columns:
        table.add_column(escape(name), justify="right" if name in numbers else "left", no_wrap=name not in wrapped)
    for row in rows:
        cells = [str(cell) for cell in row]
        table.add_row(*(_coloured(cell, (colours or {}).get(cell, "")) for cell in cells))
    return table


def _coloured(text: str, colour: str) -> str:
    return f"[{colour}]{escape(text)}[/{colour}]" if colour else escape(text)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print lines as they are, without colours."""
    for line in lines:
        console.print(line, highlight=False, markup=False)


def print_study(study: "Study", console: Console) -> None:
    """Print what a study's numbers are, and what its design has no rung for."""
    print_lines((study.describe(), *study.notes), console)


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object a line."""
    for row in rows:
        print(json.dumps(row))


def print_files(files: Sequence[Path]) -> None:
    """Say what was written."""
    print(f"Wrote {files[0].parent}/: {', '.join(file.name for file in files)}")
