"""A study as one HTML page that opens from disk: figures, verdicts, every run with its curve, how to have it all again.

The page fetches nothing. Texts are escaped by the template, page.html, which also holds its style and its script.
"""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.figures.style import BAND, GREY, GRID, INK, PAPER, SHADOW
from analysis.history import AttemptSummary, RunHistory
from analysis.ladder_table import notes_of
from analysis.metrics import TOP1, metric_of
from analysis.report.tables import FACTORS, Cells, columns_of, ladder_cells, verdict_cells
from analysis.sentences import metric_headline
from analysis.stats.answers import Answer
from roadmap.common.files import write_atomically
from roadmap.common.formats import clock, number

TEMPLATE = "page.html"
LONGEST_ERROR = 200  # letters of an error in a run's row
LOOKS = {Answer.HELPS: "better", Answer.HURTS: "worse"}  # an answer's class in the page

# A figure's colours that follow the page's, light, dark or printed; any other stays as it is.
THEME = {
    INK: "ink",
    "#000000": "ink",
    GREY: "soft",
    GRID: "line",
    PAPER: "ground",
    SHADOW: "shadow",
    BAND: "stripe",
}
COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
# The columns of the first table, by their headings without what stands there in brackets.
ANSWER_COLUMNS = ("rung", "change", "answer", "against", "paper's change", "paper's answer")

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
LEFT_OUT = {f"{{{SVG}}}metadata", f"{{{SVG}}}script"}

# Which number a column of a table is sorted by, where the text in it is more than a number.
LADDER_KEYS = {
    "multiply-adds": "macs",
    "parameters": "params",
    "change (95% interval)": "top1_delta",
}
ANSWERED = {"answer": "answer", "paper's answer": "paper_answer"}
LADDER_WORDS = ("answer", "against", "paper's answer")
VERDICT_KEYS = {
    "change (95% interval)": "delta",
    "p": "p_adjusted",
    "seed noise": "seed_se",
    "test-set noise": "test_se",
    "seeds needed": "seeds_needed",
    "round noise": "seed_se",
    "rounds needed": "seeds_needed",
} | FACTORS


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


class Cell(NamedTuple):
    """A cell of a table: its text, what it is sorted by (the text if None), its class."""

    text: str
    key: float | None = None
    look: str = ""


class Grid(NamedTuple):
    """A table: its name, headings with their class, rows."""

    name: str
    heads: list[tuple[str, str]]
    rows: list[list[Cell]]


class Setting(NamedTuple):
    """A field of a network or recipe; `before` is the value that it differs from: the rung before's, the paper's."""

    name: str
    value: str
    before: str


class Group(NamedTuple):
    """A rung's runs: how they stand, what is the rung's own among the settings, the rows of its table."""

    rung: str
    label: str
    summary: str
    settings: list[Setting]
    rows: Markup


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
    data = _RunData(page.histories)
    text = environment.get_template(TEMPLATE).render(
        page=page,
        state=_state(page.runs),
        pictures=[(picture, inline_svg(picture.path, f"f{i}")) for i, picture in enumerate(page.pictures, 1)],
        verdicts=[_verdict_grid(table, labels) for table in page.verdicts if len(table)],
        tables=[_plain_grid(title, cells) for title, cells in page.tables],
        answers=_answer_grid(page.ladder, labels, page.metric),
        ladder=_ladder_grid(page.ladder, labels, page.metric),
        notes=notes_of(page.ladder),
        shared=_shared(page.settings),
        deviations=[Setting(name, words(ours), words(paper)) for name, (paper, ours) in page.deviations.items()],
        groups=list(_groups(page, labels, data)),
        provenance=list(_provenance(page.provenance, page.histories)),
        data=data.to_json(),
    )
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def inline_svg(path: Path, name: str) -> Markup:
    """Return an SVG file as an element of a page, with ids that begin with its name, so that two do not meet.

    Its style sheet is held to it alone; what it says of itself (metadata) and scripts are left out. Its inks and
    grounds become the page's, so that it turns dark with the page.
    """
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.parse(path).getroot()  # of our own making; comments are left out
    root.set("id", f"{name}-svg")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in LEFT_OUT:
                parent.remove(child)
        if parent.tag == f"{{{SVG}}}style" and parent.text:
            parent.text = re.sub(r"(^|[{}])([^{}]+)(?={)", rf"\1#{name}-svg \2", parent.text)
        for key, value in parent.attrib.items():
            if key == "id" and parent is not root:
                parent.set(key, f"{name}-{value}")
            elif key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
                parent.set(key, f"#{name}-{value[1:]}")
            elif key in ("style", "fill", "stroke"):
                parent.set(key, COLOR.sub(_themed, value.replace("url(#", f"url(#{name}-")))
            elif "url(#" in value:
                parent.set(key, value.replace("url(#", f"url(#{name}-"))
    root.attrib.pop("height", None)  # the page gives it its width, and the box its proportions
    root.attrib.pop("width", None)
    root.set("aria-hidden", "true")  # the element around it says what is to be seen
    return Markup(ET.tostring(root, encoding="unicode"))


def _themed(color: re.Match[str]) -> str:
    """Return a colour of a figure as the page's style names it, if it does."""
    name = THEME.get(color[0].upper())
    return f"var(--{name})" if name else color[0]


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


def _ladder_grid(ladder: pd.DataFrame, labels: Mapping[str, str], metric: str) -> Grid:
    rows = ladder_cells(ladder, metric=metric)
    keys = {metric_of(metric).label: "top1"} | LADDER_KEYS
    columns = columns_of(rows)
    heads = [(name, "word" if name == "rung" or name in LADDER_WORDS else "number") for name in columns]
    body = []
    for order, (row, source) in enumerate(zip(rows, ladder.to_dict("records"), strict=True)):
        cells = [_name(row["rung"], labels.get(source["rung"], ""), order)]
        for column in columns[1:]:
            known = column in keys and not pd.isna(source[keys[column]])
            key = float(source[keys[column]]) if known else None
            look = f"word {LOOKS.get(source[ANSWERED[column]], '')}".strip() if column in ANSWERED else "number"
            cells.append(Cell(row[column], key, "word" if column == "against" else look))
        body.append(cells)
    return Grid("The ladder", heads, body)


def _answer_grid(ladder: pd.DataFrame, labels: Mapping[str, str], metric: str) -> Grid | None:
    """Return what a reader looks for first: each step's change, the answer, and the paper's; None without a step."""
    grid = _ladder_grid(ladder, labels, metric)
    kept = [i for i, (head, _) in enumerate(grid.heads) if head.partition(" (")[0] in ANSWER_COLUMNS]
    judged = [
        row for row, answer in zip(grid.rows, ladder["answer"], strict=True) if isinstance(answer, str) and answer
    ]
    if not judged:
        return None
    return Grid("Answers", [grid.heads[i] for i in kept], [[row[i] for i in kept] for row in judged])


def _plain_grid(title: str, rows: Sequence[Cells]) -> Grid:
    """Return a table sorted by its texts, as numbers where they are such."""
    columns = columns_of(rows)
    heads = [(columns[0], "word"), *((name, "number") for name in columns[1:])]
    body = [
        [_name(row[columns[0]], "", order), *(Cell(row[name], None, "number") for name in columns[1:])]
        for order, row in enumerate(rows)
    ]
    return Grid(title, heads, body)


def _verdict_grid(verdicts: pd.DataFrame, labels: Mapping[str, str]) -> Grid:
    rows = verdict_cells(verdicts)
    columns = columns_of(rows)
    heads = [(name, "word" if name in ("step", "answer") else "number") for name in columns]
    body: list[list[Cell]] = []
    above = ""
    for order, (row, source) in enumerate(zip(rows, verdicts.to_dict("records"), strict=True)):
        cells = []
        for column in columns:
            if column == "step":
                label = labels.get(row[column], "")
                against = "" if source["against"] == above else f"against {source['against']}"
                cells.append(_name(row[column], ", ".join(filter(None, (label, against))), order))
                above = row[column]
            elif column == "answer":
                cells.append(Cell(row[column], None, f"word {LOOKS.get(source['answer'], '')}".strip()))
            else:
                value = source[VERDICT_KEYS[column]]
                cells.append(Cell(row[column], None if pd.isna(value) else float(value), "number"))
        body.append(cells)
    metric = metric_of(verdicts["metric"].iloc[0])
    return Grid(metric_headline(verdicts) or metric.label, heads, body)


def _name(text: str, more: str, order: int) -> Cell:
    """Return the first cell of a row; sorted by it, the rows stand in the ladder's order."""
    return Cell(f"{text}\n{more}", order, "name")


# -- the runs


class _RunData:
    """What the page's script shows of a run when its row is opened, written small: what runs share is there once."""

    def __init__(self, histories: Mapping[str, RunHistory]) -> None:
        self.histories = histories
        self.runs: list[list[Any]] = []
        self.workers: dict[str, int] = {}
        self.planned: dict[str, int] = {}

    def add(self, run: str) -> int | None:
        """Take up a run; return its number, or None where there is nothing to show of it."""
        history = self.histories.get(run)
        if history is None:
            return None
        losses = [_short(loss) for loss in history.losses]
        where = self.planned.setdefault(json.dumps(dict(history.planned)), len(self.planned))
        attempts = [self._attempt(attempt) for attempt in history.attempts]
        self.runs.append([run, history.epochs, losses, where, attempts])
        return len(self.runs) - 1

    def _attempt(self, attempt: AttemptSummary) -> list[Any]:
        worker = attempt.worker
        who = [worker.host, worker.device, worker.commit] if worker else None
        number = self.workers.setdefault(json.dumps(who), len(self.workers))
        return [number, attempt.end, int(attempt.seen_at), (worker.job if worker else None) or 0]

    def to_json(self) -> Markup:
        """Return all of it as JSON that a script element may hold."""
        planned, workers = map(json.loads, self.planned), map(json.loads, self.workers)
        content = {"runs": self.runs, "planned": list(planned), "workers": list(workers)}
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        return Markup(text.replace("<", "\\u003c"))


def _short(loss: float) -> float | None:
    """Return a loss with three digits, which is what can be seen in a curve."""
    return float(f"{loss:.3g}") if math.isfinite(loss) else None


def _groups(page: Page, labels: Mapping[str, str], data: _RunData) -> Iterator[Group]:
    """Yield each rung's runs, in the ladder's order."""
    if page.runs is None:
        return
    by_rung = dict(iter(page.runs.groupby("rung", sort=False)))
    parents = dict(zip(page.ladder["rung"], page.ladder["parent"], strict=True))
    shared = {setting.name for setting in _shared(page.settings)}
    for rung, cells in zip(page.ladder["rung"], ladder_cells(page.ladder), strict=True):
        own = by_rung.get(rung)
        if own is None:
            continue
        before = page.settings.get(parents[rung], {})
        settings = [
            Setting(name, words(value), words(before[name]) if before.get(name, value) != value else "")
            for name, value in page.settings.get(rung, {}).items()
            if name not in shared
        ]
        finished = int((own["state"] == "finished").sum())
        result = f", top-1 {cells['top-1 (%)']}" if finished else ""
        summary = f"{finished:,} of {len(own):,} finished{result}"
        yield Group(cells["rung"], labels.get(rung, ""), summary, settings, _run_rows(own, data))


def _run_rows(runs: pd.DataFrame, data: _RunData) -> Markup:
    """Return the rows of a rung's runs; written by hand, without closing tags, because there may be ten thousand."""
    rows = []
    run: Any
    for run in runs.itertuples():
        shown = data.add(str(run.run))
        seed = run.seed if shown is None else f"<button value={shown}>{run.seed}</button>"
        error = run.error if isinstance(run.error, str) else ""
        error = error if len(error) <= LONGEST_ERROR else f"{error[:LONGEST_ERROR]} ..."
        state = escape(f"{run.state}: {error}" if error else run.state)
        numbers = (number(run.top1, ".2f"), number(run.nll, ".4f"), number(run.images_per_s, ",.0f"))
        time = "<td>" if pd.isna(run.wall_s) else f"<td data-v={run.wall_s:.1f}>{clock(run.wall_s)}"
        rows.append(f"<tr><td>{seed}<td>{state}" + "".join(f"<td>{text}" for text in numbers) + time)
    return Markup("\n".join(rows))


# -- settings and provenance


def _shared(settings: Mapping[str, Mapping[str, Any]]) -> list[Setting]:
    """Return the settings that are the same on every rung."""
    first = next(iter(settings.values()), {})
    same = [name for name in first if all(other.get(name) == first[name] for other in settings.values())]
    return [Setting(name, words(first[name]), "") for name in same]


def words(value: Any) -> str:
    """Return a setting's value for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _provenance(provenance: Mapping[str, Any], histories: Mapping[str, RunHistory]) -> Iterator[tuple[str, list[str]]]:
    """Yield what is known of where the numbers come from, and the machines that trained."""
    for name, value in provenance.items():
        values = value if isinstance(value, list | tuple) else [value]
        if told := [words(one) for one in values if one is not None]:
            yield name, told
    machines: Counter[str] = Counter()
    seen: list[float] = []
    for history in histories.values():
        for attempt in history.attempts:
            seen.append(attempt.seen_at)
            if attempt.worker:
                machines[", ".join(filter(None, (attempt.worker.host, attempt.worker.device)))] += 1
    if machines:
        yield "trained on", [f"{name} ({count:,} attempt{'s' * (count != 1)})" for name, count in machines.items()]
        yield "last attempt seen", [f"{datetime.fromtimestamp(max(seen), UTC):%Y-%m-%d %H:%M} UTC"]
