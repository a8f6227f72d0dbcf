"""A study as one HTML page that opens from disk: figures, verdicts, every run with its curve, how to have it all again.

The page fetches nothing. Texts are escaped by the template, page.html, which also holds its style and its script.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.history import RunHistory
from analysis.ladder_table import notes_of
from analysis.metrics import TOP1
from analysis.report.page_runs import RunData, Setting, groups_of, provenance_of, shared_settings, words
from analysis.report.page_tables import answer_grid, ladder_grid, plain_grid, verdict_grid
from analysis.report.svg import inline_svg
from analysis.report.tables import Cells
from roadmap.common.files import write_atomically

TEMPLATE = "page.html"


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        title: Its heading.
        caption: What is to be seen, in a sentence or two.
        path: The SVG file.
        alt: What it says, for those who do not see it; the caption if left out.
    """

    title: str
    caption: str
    path: Path
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows; parts that are empty are left out.

    Attributes:
        title: The headline.
        note: What the numbers are.
        is_proxy: Whether the note says that they stand for others, so that it has to stand out.
        headline: The sentence that says which steps are answered, and what would answer the rest.
        pictures: The figures; the first stands at the top.
        verdicts: Tables of `verdicts.VERDICT_COLUMNS`, each of one metric, the main one first.
        metric: What the ladder's `top1` is.
        ladder: A row a rung with the columns of `ladder_table.LADDER_COLUMNS`.
        sentences: Paragraphs that say in words what the numbers do.
        tables: Further tables: (title, cells).
        runs: A row a rung and seed (`analysis.run_frames`).
        histories: What runs left, by run (`analysis.history`).
        settings: Each rung's network and recipe: rung -> field -> value.
        paper_recipe: The paper's recipe that the study's stands for.
        deviations: The settings in which the two differ: name -> (the paper's, ours).
        commands: How to have all of it again: (what it does, the command).
        provenance: Where, when and with what: name -> value or list of values.
    """

    title: str
    note: str
    is_proxy: bool
    headline: str = ""
    metric: str = TOP1
    ladder: pd.DataFrame
    pictures: Sequence[Picture] = ()
    verdicts: Sequence[pd.DataFrame] = ()
    sentences: Sequence[str] = ()
    tables: Sequence[tuple[str, Sequence[Cells]]] = ()
    runs: pd.DataFrame | None = None
    histories: Mapping[str, RunHistory] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper_recipe: str = ""
    deviations: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    commands: Sequence[tuple[str, str]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_page(path: Path, page: Page) -> Path:
    """Write a page.

    Returns:
        The path.

    Raises:
        UserError: If the folder cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"breakable": _breakable, "js_number": _js_number}
    labels = {str(rung): str(label) for rung, label in zip(page.ladder["rung"], page.ladder["label"], strict=True)}
    data = RunData(page.histories)
    text = environment.get_template(TEMPLATE).render(
        page=page,
        state=_state(page.runs),
        pictures=[(picture, inline_svg(picture.path, f"f{i}")) for i, picture in enumerate(page.pictures, 1)],
        verdicts=[verdict_grid(table, labels) for table in page.verdicts if len(table)],
        tables=[plain_grid(title, cells) for title, cells in page.tables],
        answers=answer_grid(page.ladder, labels, page.metric),
        ladder=ladder_grid(page.ladder, labels, page.metric),
        notes=notes_of(page.ladder),
        shared=shared_settings(page.settings),
        deviations=[Setting(name, words(ours), words(paper)) for name, (paper, ours) in page.deviations.items()],
        groups=[] if page.runs is None else list(groups_of(page.runs, page.ladder, page.settings, data)),
        provenance=list(provenance_of(page.provenance, page.histories)),
        data=data.to_json(),
    )
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def _breakable(text: str) -> Markup:
    """Return a name that a narrow page may break after a dot or an underscore."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(text))))


def _js_number(value: float) -> str:
    """Return a number as JavaScript reads it."""
    return repr(value).replace("inf", "Infinity")


def _state(runs: pd.DataFrame | None) -> str:
    """Say how many runs there are and how they stand."""
    if runs is None:
        return ""
    counts = Counter(runs["state"])
    told = [f"{counts[state]:,} {state}" for state in ("finished", "diverged", "failed", "missing") if counts[state]]
    seeds = runs["seed"].nunique()
    return f"{len(runs):,} run{'s' * (len(runs) != 1)} ({seeds:,} seed{'s' * (seeds != 1)} a rung): {', '.join(told)}."
