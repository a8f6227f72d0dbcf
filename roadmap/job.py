"""The name under which earlier versions put `Job` into Slurm's queue: their jobs still start."""

from roadmap.jobs.worker import Job

__all__ = ["Job"]
