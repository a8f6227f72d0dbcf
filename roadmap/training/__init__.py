"""Training one run: the loop, one step, evaluation, checkpoints, several processes, loggers.

Which runs there are, and who starts them, is not known here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.common.errors import UserError
from roadmap.common.provenance import provenance
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker
from roadmap.runs.claims import Lost, take

if TYPE_CHECKING:
    from roadmap.study.plan import PlannedRun


def train(
    run: "PlannedRun", *, data_root: str | Path | None = None, device: str | None = None, threads: int = 1
) -> dict[str, Any]:
    """Train one run of a study here and evaluate it; go on where its folder says it stopped.

    A run that is done is not trained again, and while it is trained no job takes it. On a CPU the result depends on
    nothing but the configuration and the number of threads.

    Args:
        run: One of `plan_study(...).planned()`.
        data_root: Where the data set lies; None looks in the usual places.
        device: "cpu" or "cuda"; None takes a GPU where there is one.
        threads: CPU threads to use.

    Returns:
        The result row, as written to `run.folder / "result.json"`; `roadmap.runs.run_folder.Result` says what the
        columns are.

    Raises:
        UserError: If the data or the folder cannot be used, or a job is at work on the run, or has taken it over.
    """
    from roadmap.training import loop

    if run_folder.is_done(run.folder):
        return run_folder.read_result(run.folder) or {}
    run.write(provenance())
    with take(run.folder, Worker.here(launch="roadmap.train"), lambda _: None) as claim:
        if claim is None:
            raise UserError(f"{run.folder}: a job is at work on it. Wait for it, or cancel it.")
        root = None if data_root is None else Path(data_root)
        claim.end = "stopped"  # by an error or by Ctrl-C: it can go on
        try:
            row = loop.train(
                run.config,
                run.folder,
                data_root=root,
                device=device,
                threads=threads,
                asked=lambda: "leave" if claim.is_lost() else "",
                writer=claim.writer,
            )
        except (Lost, loop.Stopped) as error:
            raise UserError(f"{run.folder}: another job has taken the run over. Nothing there was changed.") from error
        claim.end = row["state"]
        return row
