"""The commands that read runs: status, report, judge. Each is a screen, from its options to its exit code."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from roadmap.cli.commands import Exit
from roadmap.cli.options import (
    amount_of,
    base_of,
    ladder_of,
    margin_of,
    out_of,
    studies_beside,
    study_behind,
    study_of,
    study_to_report,
    test_of,
    with_seeds_found,
    words_of,
)
from roadmap.cli.terminal import make_table, print_files, print_json, print_lines
from roadmap.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.report.contents import Presentation
    from analysis.study_results import StudyResults
    from roadmap.runs.metrics import Metric
    from roadmap.study.plan import Study

STATUS_ROWS = 200  # more runs than these are counted, and those shown that something is up with
STATUS_LOGS = 5


def status(options: Namespace) -> Exit:
    """Print where every run stands."""
    from roadmap.jobs.status import look_at_queue, standing
    from roadmap.runs.metrics import last_measured
    from roadmap.runs.run_folder import RUN, read_progress, read_result

    study = study_of(with_seeds_found(options, RUN))
    queue = look_at_queue(study.runs)
    rows, logs = [], []
    metrics: dict[str, Metric] = {}
    for run in study.planned():
        stands = standing(run.folder, queue)
        done = stands.state in ("finished", "diverged")
        now = {} if done or stands.state == "failed" else read_progress(run.folder) or {}
        row = read_result(run.folder) or {} if done else {}
        measured = last_measured(run.folder)
        rows.append(
            {
                "rung": ", ".join(run.rungs),
                "seed": run.config.seed,
                "run": run.config.id,
                "state": stands.state,
                "epoch": f"{now['epoch']}/{now['epochs']}" if now else "",
                "step": f"{now['step']}/{now['steps']}" if now else "",
                "left_s": now.get("left_s") if stands.state == "running" else None,
                "top1": row.get("top1"),
                "measured": {name: value for name, (_, value) in measured.items()},
                "note": stands.note,
                "log": str(stands.log or ""),
            }
        )
        metrics |= {name: metric for name, (metric, _) in measured.items()}
        if stands.state in ("failed", "lost"):
            logs.append((f"{run.rungs[0]} seed {run.config.seed}", stands))
    if options.json:
        print_json(rows)
        return Exit.OK
    console = Console()
    shown = [row for row in rows if len(rows) <= STATUS_ROWS or row["state"] not in ("finished", "waiting")]
    cells = [(row["rung"], row["seed"], row["state"], _progress(row, metrics)) for row in shown[:STATUS_ROWS]]
    if shown:
        columns = ("rung", "seed", "state", "progress")
        console.print(make_table(columns, cells, numbers=["seed"], wrapped=["progress"]))
    for name, stands in logs[:STATUS_LOGS]:
        if tail := stands.log_tail():
            print_lines([f"\n{name}, the end of {stands.log}:", *(f"  {line}" for line in tail)], console)
    counts = Counter(row["state"] for row in rows)
    console.print(f"{len(rows)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}.", highlight=False)
    if study.sought:
        print_lines([f"Rounds that are over: {len(study.looks)}. The answers are those of the last."], console)
    if not queue.answers:
        console.print("Slurm does not answer: what waits in its queue cannot be told now.")
    return Exit.OK


def _progress(row: dict[str, Any], metrics: "Mapping[str, Metric]") -> str:
    """Say how far a run is, or what came of it, from its row of `status`."""
    from roadmap.common.formats import clock

    parts = [
        f"top-1 {row['top1']:.2f}" if row["top1"] is not None else "",
        *(f"{metrics[name].name} {value:{metrics[name].digits}}" for name, value in row["measured"].items()),
        f"epoch {row['epoch']}" if row["epoch"] else "",
        f"{clock(row['left_s'])} left" if row["left_s"] is not None else "",
        row["note"],
    ]
    return ", ".join(filter(None, parts))


def report(options: Namespace) -> Exit:
    """Write tables and figure from the run folders, from the published numbers, or from a record."""
    from analysis.report.record import read_record
    from analysis.report.record_results import RecordResults
    from analysis.report.write import write_published, write_record
    from analysis.sentences import published_headline
    from analysis.terminal import say

    if options.published or options.record:
        refuse_study(options, "--published" if options.published else "--record")
    if options.record:
        judged = RecordResults(read_record(options.record), margin=margin_of(options), test=test_of(options))
        files = write_record(judged, options.out or options.record, presentation_of(options))
        say(judged.headline, Console())
        print_files(files)
        return Exit.OK
    if options.published:
        ladder, base = ladder_of(options), base_of(options)
        out = options.out or Path("out") / f"{base}-published"
        rule: dict[str, Any] = {"margin": margin_of(options), "test": test_of(options)}
        files = write_published(ladder, base, out, **rule, look=presentation_of(options))
        say(published_headline(published_verdicts_of(options)), Console())
        print_files(files)
        return Exit.OK
    study, shown = study_to_report(options, Console())
    report_results(shown, results_of(shown, study), out_of(options, study))
    return Exit.OK


def results_of(options: Namespace, study: "Study") -> "StudyResults":
    """Return what a study's runs say, by the rule that the options choose; nothing is read yet."""
    from analysis.study_results import StudyResults

    beside = studies_beside(options, study)
    return StudyResults(study, beside=beside, margin=margin_of(options), test=test_of(options))


def report_results(options: Namespace, results: "StudyResults", out: Path) -> None:
    """Write a study's report, and print what it says and where it is."""
    from analysis.report.write import write_report
    from analysis.terminal import print_results

    behind = study_behind(options, results.study)
    files = write_report(results, out, behind=behind, words=words_of(options), look=presentation_of(options))
    print_results(results, Console())
    print_files(files)


def presentation_of(options: Namespace) -> "Presentation":
    """Return how a report is to look."""
    from analysis.report.contents import DEFAULT, Presentation
    from analysis.results_file import read_labels

    return Presentation(
        title=options.title,
        width=DEFAULT.width if options.width is None else amount_of(options.width, "--width"),
        labels={} if options.labels is None else read_labels(options.labels),
        columns=options.columns or DEFAULT.columns,
    )


def judge(options: Namespace) -> Exit:
    """Judge anybody's results, from a file with a row a run, and report them."""
    from analysis.frame_results import PREVIOUS, FrameResults
    from analysis.report.write import write_report
    from analysis.results_file import read_results
    from analysis.terminal import print_frame_results

    look = presentation_of(options)
    path = Path(options.file)
    results = FrameResults(
        runs=read_results(path, options.metrics),
        against=options.against or PREVIOUS,
        lower_is_better=options.lower_is_better or (),
        margin=margin_of(options),
        labels=look.labels,
        title=path.stem,
        test=test_of(options),
    )
    if options.json:
        print_verdict_rows(results.verdicts)
        return Exit.OK
    files = write_report(results, options.out or Path("out") / path.stem, look=look)
    print_frame_results(results, Console())
    print_files(files)
    return Exit.OK


def step_of(options: Namespace) -> str | None:
    """Return the one step that is compared, if one was named."""
    step, *more = options.step or [None]
    if more:
        raise UserError(f"--step: {' '.join(options.step)} are several steps, but 'compare' shows one. Name one.")
    return None if step is None else str(step)


def print_verdict_rows(tables: Iterable["pd.DataFrame"], **more: Any) -> None:
    """Print changes with their answers, one JSON object a line."""
    from analysis.verdicts import to_json

    for table in tables:
        print_json(more | row for row in to_json(table))


def refuse_study(options: Namespace, other: str) -> None:
    """Refuse options that choose among runs, where no runs are asked about."""
    for name in ("design", "samples", "only", "until", "seeds", "validate", "references"):
        if getattr(options, name) not in (None, False):
            raise UserError(f"--{name}: goes with runs of your own, not with {other}. Leave one of the two out.")


def published_verdicts_of(options: Namespace) -> "pd.DataFrame":
    """Return the verdicts on the paper's own steps, or on the one that was named."""
    from analysis.verdicts import published_verdicts

    refuse_study(options, "--published")
    ladder, base = ladder_of(options), base_of(options)
    rule: dict[str, Any] = {"margin": margin_of(options), "test": test_of(options)}
    step = step_of(options)
    if step and options.against:
        return published_verdicts(ladder, base, pairs=[(step, options.against)], **rule)
    judged = published_verdicts(ladder, base, **rule)
    if step and step not in set(judged["step"]):
        raise UserError(f"'{step}' is where the ladder starts: there is no rung before it. Name one with --against.")
    return judged[judged["step"] == step] if step else judged
