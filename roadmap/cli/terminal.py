"""What commands print: tables for reading, JSON for programs, lines as they are."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
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
    width: int | None = None,
    optional: Sequence[str] = (),
) -> Table:
    """Return a table without lines, of texts that are printed as they are.

    Args:
        columns: Headings.
        rows: A cell for each column.
        numbers: The columns that stand to the right.
        wrapped: The columns whose cells may take several lines where the terminal is narrow.
        colours: Cells of this text are in this colour.
        tight: Whether columns stand close together.
        width: Characters that there is room for, if that matters.
        optional: Columns that are left out where there is no room, the first of these first.
    """
    columns, rows = _fitting(columns, [[str(cell) for cell in row] for row in rows], width, optional, wrapped)
    table = Table(box=None, pad_edge=False, collapse_padding=tight)
    for name in columns:
        table.add_column(escape(name), justify="right" if name in numbers else "left", no_wrap=name not in wrapped)
    for cells in rows:
        table.add_row(*(_coloured(cell, (colours or {}).get(cell, "")) for cell in cells))
    return table


def _fitting(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    optional: Sequence[str],
    wrapped: Collection[str],
) -> tuple[list[str], list[list[str]]]:
    """Return the columns, and of each row their cells, without as many optional ones as there is no room for."""
    cells = {name: [name, *(row[place] for row in rows)] for place, name in enumerate(columns)}
    widths = {name: max(map(cell_len, _unbroken(of, name in wrapped)), default=0) for name, of in cells.items()}
    shown = list(columns)
    for name in optional:
        if width is None or sum(widths[column] for column in shown) + 2 * (len(shown) - 1) <= width:
            break
        if name in shown:
            shown.remove(name)
    return shown, [list(row) for row in zip(*(cells[name][1:] for name in shown), strict=True)]


def _unbroken(cells: Sequence[str], wrapped: bool) -> Iterator[str]:
    """Yield the parts of cells that stand on one line: words, where a cell is wrapped."""
    for text in cells:
        yield from text.split() if wrapped else text.split("\n")


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
