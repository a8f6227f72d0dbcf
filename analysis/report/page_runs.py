"""What a study's page shows of its runs: rows by rung, their settings, the machines that trained them."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from analysis.history import AttemptSummary, RunHistory
from analysis.report.tables import ladder_cells
from roadmap.common.formats import clock, number

LONGEST_ERROR = 200  # letters of an error in a run's row
Settings = Mapping[str, Mapping[str, Any]]


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


class RunData:
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


def groups_of(runs: pd.DataFrame, ladder: pd.DataFrame, settings: Settings, data: RunData) -> Iterator[Group]:
    """Yield each rung's runs, in the ladder's order, with what is its own among the settings."""
    by_rung = dict(iter(runs.groupby("rung", sort=False)))
    parents = dict(zip(ladder["rung"], ladder["parent"], strict=True))
    shared = {setting.name for setting in shared_settings(settings)}
    for rung, label, cells in zip(ladder["rung"], ladder["label"], ladder_cells(ladder), strict=True):
        own = by_rung.get(rung)
        if own is None:
            continue
        before = settings.get(parents[rung], {})
        changed = [
            Setting(name, words(value), words(before[name]) if before.get(name, value) != value else "")
            for name, value in settings.get(rung, {}).items()
            if name not in shared
        ]
        finished = int((own["state"] == "finished").sum())
        result = f", top-1 {cells['top-1 (%)']}" if finished else ""
        summary = f"{finished:,} of {len(own):,} finished{result}"
        yield Group(cells["rung"], label, summary, changed, _run_rows(own, data))


def _run_rows(runs: pd.DataFrame, data: RunData) -> Markup:
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


def shared_settings(settings: Mapping[str, Mapping[str, Any]]) -> list[Setting]:
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


def provenance_of(
    provenance: Mapping[str, Any], histories: Mapping[str, RunHistory]
) -> Iterator[tuple[str, list[str]]]:
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
