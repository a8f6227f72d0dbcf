"""How jobs are to be started, as the command line says."""

from dataclasses import dataclass, field
from pathlib import Path

from roadmap.common.errors import UserError
from roadmap.jobs.cluster import LINE, Cluster


@dataclass(frozen=True)
class JobOptions:
    """How a study's jobs are started.

    Attributes:
        executor: One of `roadmap.jobs.executors.EXECUTORS`.
        runs: The runs folder, where logs go.
        name: What the jobs are called; it is one command's alone.
        cluster: What a run's job asks for.
        jobs: Jobs at once; None takes as many as the machine, or the cluster, has room for.
        runs_per_job: Runs that share a job, on Slurm.
        max_retries: How often a run that died of something outside itself is tried again.
        data_root: Where the data set lies.
        loggers: What else is to receive the progress of runs (`roadmap.training.loggers`).
        wait: Whether the caller stays; local jobs of one who stays end with it, even if it is killed.
    """

    executor: str
    runs: Path
    name: str
    cluster: Cluster = field(default_factory=lambda: Cluster())
    jobs: int | None = None
    runs_per_job: int = 1
    max_retries: int = 2
    data_root: Path | None = None
    wait: bool = True
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a runs folder that a job's script cannot name, or that submitit or Slurm read something into.

        Raises:
            UserError: If its path has such a letter.
        """
        place = str(self.runs.absolute())
        if not LINE.fullmatch(place) or set("%\\") & set(place):
            raise UserError(
                f"{place!r}: jobs cannot name this folder: it has a '%', a backslash or a line break. Choose another "
                "--runs."
            )
