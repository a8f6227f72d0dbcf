"""The command `robustness`: trained networks under attacks and corruptions."""

import signal
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from roadmap.cli.commands import Exit
from roadmap.cli.options import jobs_of, robustness_settings_of, study_of
from roadmap.cli.terminal import print_json, print_study
from roadmap.common.errors import UserError
from roadmap.common.process_group import under_torchrun
from roadmap.robustness.settings import Settings

if TYPE_CHECKING:
    from roadmap.common.machine import Machine
    from roadmap.jobs.pool import Tell
    from roadmap.study.plan import PlannedRun


@dataclass(frozen=True)
class Examination:
    """A trained run that is to be examined, and in which parts."""

    run: "PlannedRun"
    settings: Settings
    data_root: Path | None
    on_gpu: bool
    missing: tuple[str, ...]
    macs: int

    def costs(self) -> dict[str, float]:
        """Return about how many multiply-adds an image each part takes."""
        return {part: self.macs * self.settings.cost(part) for part in self.missing}

    def __call__(self, tell: "Tell") -> None:
        """Do it."""
        from roadmap.robustness.evaluation import examine

        device = "cuda" if self.on_gpu else "cpu"
        examine(self.run.folder, self.run.config, self.settings, data_root=self.data_root, device=device, tell=tell)


def robustness(options: Namespace) -> Exit:
    """Attack and corrupt what every trained network of a study sees, as far as that is not done, and print the outcome.

    A report and a comparison then tell of it too.
    """
    from analysis.robustness import collect_robustness, robustness_rows
    from analysis.terminal import print_robustness
    from roadmap.common.files import check_writable
    from roadmap.common.formats import clock
    from roadmap.common.machine import look_around
    from roadmap.robustness.attacks import require_toolbox
    from roadmap.runs.run_folder import read_result

    if under_torchrun() or options.executor == "slurm":
        raise UserError(
            "robustness: works on this machine, in processes of its own. Start it in a job, as one process."
        )
    settings, study, console = robustness_settings_of(options), study_of(options), Console(stderr=options.json)
    require_toolbox()
    check_writable(study.runs, "--runs")
    planned = study.planned()
    trained = [run for run in planned if (read_result(run.folder) or {}).get("state") == "finished"]
    machine = look_around(jobs_of(options))
    print_study(study, console)
    missing = {run.config.id: _missing(run, settings, console) for run in trained}
    work = [
        Examination(run, settings, options.data, machine.gpus > 0, parts, run.macs)
        for run in trained
        if (parts := missing[run.config.id])
    ]
    done = sum(parts == () for parts in missing.values())
    console.print(
        f"{len(planned)} runs, {len(trained)} trained, {done} examined already, {len(work)} to do, with "
        f"{settings.images:,} test images each.",
        highlight=False,
    )
    start = time.monotonic()
    are_well = _examine(sorted(work, key=lambda one: -one.macs), machine, console, here=options.executor == "debug")
    if work:
        console.print(f"Took {clock(time.monotonic() - start)}.", highlight=False)
    found = collect_robustness(study)
    if options.json:
        print_json(robustness_rows(study, found))
    else:
        print_robustness(found, console)
    return Exit.OK if trained and are_well and done + len(work) == len(trained) else Exit.FAILED


def _missing(run: "PlannedRun", settings: Settings, console: Console) -> tuple[str, ...] | None:
    """Return the parts that are not known yet of a trained run, saying what is damaged; None without its weights."""
    from roadmap.robustness.evaluation import ask
    from roadmap.robustness.settings import Damaged, read_found

    try:
        found = read_found(run.folder)
    except Damaged as error:
        console.print(f"{error}", markup=False, highlight=False)
        found = []
    try:
        asked = ask(run.folder, run.config, settings)
    except UserError as error:
        console.print(f"{_name_of(run)}: not examined: {error}", markup=False, highlight=False)
        return None
    known: dict[str, Any] = next((entry["parts"] for entry in found if entry["asked"] == asked), {})
    return tuple(part for part in settings.parts if part not in known)


def _name_of(run: "PlannedRun") -> str:
    return f"{run.rungs[0]} seed {run.config.seed}"


def _examine(work: list[Examination], machine: "Machine", console: Console, *, here: bool) -> bool:
    """Examine trained runs, with live progress; say which could not be, and return whether all could."""
    from roadmap.cli.progress import show_steps
    from roadmap.jobs.pool import work_through

    if not work:
        return True
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun, at = 0.0, {one.run.config.id: 0.0 for one in work}
    total = sum(sum(one.costs().values()) for one in work)
    with show_steps(console) as show:

        def hear(one: Examination, part: str) -> None:
            nonlocal begun
            begun += at[one.run.config.id]
            at[one.run.config.id] = one.costs().get(part, 0.0)
            show(int(100 * begun / total), 100, f"{_name_of(one.run)}: {part.replace('_', ' ')}")

        errors = work_through(work, machine, hear, here=here)
    for one, error in zip(work, errors, strict=True):
        if error is not None:
            told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            console.print(f"{_name_of(one.run)}: not examined: {told}", markup=False, highlight=False)
    return not any(errors)
