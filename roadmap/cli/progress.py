"""Live progress of a study's jobs: a table and a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from roadmap.cli.terminal import make_table
from roadmap.common.errors import UserError
from roadmap.common.formats import clock
from roadmap.runs import run_folder
from roadmap.study.plan import PlannedRun

LOOK_EVERY_S = 0.5
PLAIN_EVERY_S = 30.0
LEFT_OUT_FIRST = ("images/s", "loss", "epoch", "runs")  # where a terminal is narrow
CELLS = ("runs", "state", "epoch", "loss", "top-1", "images/s")
CELLS_OF_A_ROUND = ("runs", "state", "top-1")  # beside the answers there is no room for more in 80 columns
ANSWERS = "change so far (95% interval), answer"


@dataclass
class Look:
    """Where one run stands, as its folder says."""

    state: str = "waiting"
    ended: bool = False
    share: float = 0.0  # of its steps done
    epoch: str = ""
    loss: float | None = None
    top1: float | None = None
    images_per_s: float | None = None


def look(run: PlannedRun, began: float) -> Look:
    """Read where a run stands; progress from before `began` (seconds since the epoch) is an earlier attempt's."""
    row = run_folder.read_result(run.folder)
    if row is not None and not (row["state"] == "failed" and (run.folder / run_folder.RESULT).stat().st_mtime < began):
        return Look(row["state"], True, 1.0, "", row["train_loss"], row["top1"], row["images_per_s"])
    now = run_folder.read_progress(run.folder)
    if now is None or now["at"] < began:
        return Look()
    return Look(
        now["state"],
        False,
        now["step"] / now["steps"],
        f"{now['epoch']}/{now['epochs']}",
        now["train_loss"],
        None,
        now["images_per_s"],
    )


@dataclass
class Watch:
    """Shows a study's runs until its jobs are done.

    Attributes:
        runs: All runs of the study.
        costs: What each will take, in any unit (seconds, as forecast).
        labels: Rung ids in the ladder's order.
        console: Where to print.
        answers: Of a study in rounds: what is known of each rung's step since the last one, its interval and answer.
        round: Of a study in rounds: which one this is, from 1.
        rest: What each takes of that beside its steps, so that a run that is evaluated is not yet done.
    """

    runs: Sequence[PlannedRun]
    costs: Sequence[float]
    labels: Sequence[str]
    console: Console
    answers: Mapping[str, str] = field(default_factory=dict)
    round: int = 0
    rest: float = 0.0
    began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        """Note what was done before: it says nothing about how fast this launch is, and is no news."""
        self._seen: dict[str, Look] = {}
        self._refresh()
        ended = [(run, cost) for run, cost in zip(self.runs, self.costs, strict=True) if self.look(run).ended]
        self.before = sum(cost for _, cost in ended)
        self.first: tuple[float, float] | None = None  # when this launch's first step was seen, and the cost done then
        self.known = {run.config.id for run, _ in ended}

    def look(self, run: PlannedRun) -> Look:
        """Return where a run stood at the last refresh."""
        return self._seen[run.config.id]

    def _refresh(self) -> None:
        """Read the files of every run that is not done."""
        for run in self.runs:
            name = run.config.id
            if name not in self._seen or self._seen[name].state not in ("finished", "diverged"):
                try:
                    self._seen[name] = look(run, self.began)
                except (OSError, UserError):  # another machine is just replacing it, or the file server is away
                    self._seen.setdefault(name, Look())

    def follow(self, is_over: Callable[[], bool]) -> None:
        """Show progress until it is over."""
        if self.console.is_terminal:
            with Live(self.picture(), console=self.console, refresh_per_second=2, transient=True) as live:
                while not is_over():
                    time.sleep(LOOK_EVERY_S)
                    live.update(self.picture())
        else:
            self._follow_plainly(is_over)

    def _follow_plainly(self, is_over: Callable[[], bool]) -> None:
        said_at = time.monotonic()
        while True:
            done = is_over()
            self._refresh()
            for run in self.runs:
                now = self.look(run)
                if now.ended and run.config.id not in self.known:
                    self.known.add(run.config.id)
                    said_at = time.monotonic()
                    top1 = f", top-1 {now.top1:.2f}" if now.top1 is not None else ""
                    name = f"{run.rungs[0]} seed {run.config.seed}"
                    self._say(f"{name}: {now.state}{top1}. ")
            if time.monotonic() - said_at > PLAIN_EVERY_S:
                said_at = time.monotonic()
                self._say()
            if done:
                return
            time.sleep(LOOK_EVERY_S)

    def _say(self, news: str = "") -> None:
        line = f"[{len(self.known)}/{len(self.runs)}] {news}{self._time_left()}"
        self.console.print(line, markup=False, highlight=False)

    def done_cost(self) -> float:
        """Return the cost of the work that is done, in the unit of `costs`."""
        return sum(
            cost if self.look(run).ended else max(0.0, cost - self.rest) * self.look(run).share
            for run, cost in zip(self.runs, self.costs, strict=True)
        )

    def time_left(self) -> str:
        """Estimate the time left."""
        self._refresh()
        return self._time_left()

    def _time_left(self) -> str:
        """Estimate it from the cost done since this launch's first step: starting up is not progress."""
        done, total, now = self.done_cost(), sum(self.costs), time.time()
        if total - done <= 0:
            return "All runs are done"
        if self.first is None and done > self.before:
            self.first = (now, done)
        if self.first is None or done <= self.first[1]:
            return "Starting"
        since, at_first = self.first
        left = clock((total - done) * (now - since) / (done - at_first))
        return f"Round {self.round}: the next answers in about {left}" if self.round else f"About {left} left"

    def picture(self) -> Group:
        """Return the table of rungs and the bar; of more rungs than there are lines, first those at work."""
        self._refresh()
        looks = {label: [self.look(run) for run in self.runs if label in run.rungs] for label in self.labels}
        looks = {label: found for label, found in looks.items() if found}
        shown = self._choose(looks)
        columns = ["rung", *(name for name in CELLS if not self.round or name in CELLS_OF_A_ROUND)]
        columns += [ANSWERS] if self.round else []
        rows = []
        for label in filter(shown.__contains__, looks):
            cells = {"rung": label, ANSWERS: self.answers.get(label, "")} | self._cells(looks[label])
            rows.append([cells[name] for name in columns])
        table = make_table(
            columns,
            rows,
            numbers={*columns} - {"rung", "state", ANSWERS},
            width=self.console.width,
            optional=LEFT_OUT_FIRST,
        )
        bar = Progress(
            BarColumn(bar_width=min(40, self.console.width // 3)),
            TextColumn("{task.percentage:3.0f}%  {task.description}"),
        )
        bar.add_task(self._time_left(), total=100, completed=int(100 * self.done_cost() / sum(self.costs)))
        left_out = [Text(f"and {len(looks) - len(shown)} more rungs")] * (len(shown) < len(looks))
        return Group(table, *left_out, bar)

    def _choose(self, looks: Mapping[str, Sequence[Look]]) -> set[str]:
        """Return the rungs for which there are lines: at work, failed, waiting, finished, in this order of need."""
        lines = self.console.height - 4  # the heading, the line about the others, the bar, the cursor's
        if len(looks) <= lines + 1:
            return set(looks)

        def need(label: str) -> int:
            states = {look.state for look in looks[label]}
            if states - {"waiting", "finished", "failed", "diverged"}:
                return 0
            return 1 if states & {"failed", "diverged"} else 2 if "waiting" in states else 3

        return set(sorted(looks, key=need)[: max(1, lines)])

    def _cells(self, all_runs: list[Look]) -> dict[str, str]:
        ended = [run for run in all_runs if run.ended]
        moving = [run for run in all_runs if not run.ended and run.state != "waiting"]
        odd = sorted({run.state for run in ended} - {"finished"})
        state = moving[0].state if moving else "finished" if len(ended) == len(all_runs) else "waiting"
        top1 = [run.top1 for run in ended if run.top1 is not None]
        shown = moving or [run for run in ended if run.loss is not None]
        speeds = [run.images_per_s for run in shown if run.images_per_s]
        cells = [
            f"{len(ended)}/{len(all_runs)}",
            " ".join(dict.fromkeys([*odd, state])) if odd and state != "finished" else ", ".join(odd) or state,
            moving[0].epoch if moving else "",
            f"{shown[-1].loss:.3f}" if shown and shown[-1].loss is not None else "",
            f"{sum(top1) / len(top1):.2f}" if top1 else "",
            f"{sum(speeds) / len(speeds):,.0f}" if speeds else "",
        ]
        return dict(zip(CELLS, cells, strict=True))


@contextmanager
def show_steps(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Yield what shows (steps done, of how many, what is at hand): a bar on a terminal, now and then a line elsewhere.

    Nothing is drawn between its calls, so that what is timed there is not disturbed.
    """
    began = said_at = time.monotonic()

    def left(done: int, total: int) -> str:
        return f"about {clock((total - done) * (time.monotonic() - began) / done)} left" if done else "starting"

    if console.is_terminal:
        columns = BarColumn(bar_width=40), TextColumn("{task.percentage:3.0f}%  {task.description}", markup=False)
        with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
            task = bar.add_task("")
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=f"{what}, {left(done, total)}", refresh=True
            )
        return

    def say(done: int, total: int, what: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > PLAIN_EVERY_S:
            said_at = time.monotonic()
            console.print(f"[{done}/{total}] {what}, {left(done, total)}", markup=False, highlight=False)

    yield say
