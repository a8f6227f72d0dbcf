"""What a run's job asks of a cluster, from a small YAML file; checked before anything is submitted."""

import os
import re
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, model_validator
from pydantic.dataclasses import dataclass

from roadmap.common.errors import FieldErrors, UserError
from roadmap.common.fields import PositiveFloat, PositiveInt
from roadmap.common.yaml_files import read_yaml

START_S = 60  # for a job to start and reach its first steps
LINE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")  # a value that stays on its line of the script
FLAG = re.compile(r"[a-z][a-z-]*")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Cluster:
    """The resources of one run's job; the YAML file given with --cluster has these keys, all of them optional.

    Attributes:
        partition: Where to queue; the cluster's default where left out, as with the next three.
        account: Whom to charge.
        qos: Quality of service.
        constraint: Features that a node must have, such as "a100&nvlink".
        exclude: Nodes not to use.
        nodes: Machines that train a run together.
        tasks_per_node: Processes of a run on each machine; with GPUs one for each.
        gpus_per_node: GPUs on each machine.
        cpus_per_task: Cores of each process: its threads, and its image decoding workers.
        mem_gb: Memory on each machine, in GB.
        time_min: Time limit in minutes. A run that takes longer is requeued and goes on.
        max_timeouts: How often it may.
        signal_delay_s: How many seconds before the limit the job is told, to save.
        save_every_min: Minutes between two checkpoints of a run; the end of an epoch saves too.
        setup: Shell lines before the program starts, such as "module load cuda".
        mail_user: Whom to mail,
        mail_type: and about what, such as "END,FAIL".
        sbatch: Any other option of sbatch, by its long name.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt = 1
    gpus_per_node: Annotated[StrictInt, Field(ge=0)] = 0
    cpus_per_task: PositiveInt = 1
    mem_gb: Annotated[StrictFloat, Field(ge=0.001, le=1e6)] | None = None
    time_min: PositiveInt = 240
    max_timeouts: PositiveInt = 1000
    signal_delay_s: Annotated[StrictInt, Field(ge=10)] = 90
    save_every_min: PositiveFloat = 2.0
    setup: tuple[str, ...] = ()
    mail_user: str | None = None
    mail_type: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "Cluster":
        wrong: dict[str, str] = {}
        for name in fields(self):
            value = getattr(self, name.name)
            values = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else (value,)
            if any(isinstance(text, str) and not LINE.fullmatch(text) for text in values):
                wrong[name.name] = f"{name.name} is {value!r}, but must be text on one line."
        if odd := [flag for flag in self.sbatch if not FLAG.fullmatch(flag)]:
            wrong["sbatch"] = f"sbatch has {odd[0]!r}, which is no option's long name. Write it without the dashes."
        elif taken := sorted(flag for flag in self.sbatch if any(name.startswith(flag) for name in OURS)):
            wrong["sbatch"] = f"sbatch sets {', '.join(taken)}, which has a key of its own here, or is ours to set."
        elif odd := [f"{k} to {v!r}" for k, v in self.sbatch.items() if not isinstance(v, bool | int | float | str)]:
            wrong["sbatch"] = f"sbatch sets {odd[0]}, but a value is a text, a number, or true for a flag without one."
        if self.gpus_per_node not in (0, self.tasks_per_node):
            wrong["gpus_per_node"] = (
                f"gpus_per_node is {self.gpus_per_node} and tasks_per_node {self.tasks_per_node}, but each process has "
                "one GPU. Give both the same number."
            )
        needed = self.save_every_min * 60 + self.signal_delay_s + START_S
        if self.time_min * 60 < needed:
            wrong["time_min"] = (
                f"time_min is {self.time_min}, too short to get from one checkpoint to the next: starting ({START_S} "
                f"s), save_every_min ({self.save_every_min:g} min) and signal_delay_s ({self.signal_delay_s} s) need "
                f"{needed / 60:.1f} min. Ask for more time, or save more often."
            )
        if wrong:
            raise FieldErrors([((name,), text) for name, text in wrong.items()])
        return self

    @property
    def processes(self) -> int:
        """How many processes train a run together."""
        return self.nodes * self.tasks_per_node

    def one_process(self) -> "Cluster":
        """Return the same with one process a job, on one GPU if it has any: for work that is not shared out."""
        return replace(self, nodes=1, tasks_per_node=1, gpus_per_node=min(1, self.gpus_per_node))

    def sbatch_parameters(self) -> dict[str, Any]:
        """Return the options of sbatch that this stands for, as submitit names them."""
        chosen = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint", "exclude")}
        chosen |= {"mail_user": self.mail_user, "mail_type": self.mail_type}
        chosen |= {
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "gpus_per_node": self.gpus_per_node or None,
            "cpus_per_task": self.cpus_per_task,
            "mem": f"{round(self.mem_gb * 1024)}MB" if self.mem_gb else None,
            "time": self.time_min,
            "signal_delay_s": self.signal_delay_s,
            # Whatever the cluster's default is: what was preempted or ran out of time comes back.
            "additional_parameters": {"requeue": True}
            | {flag: value for flag, value in self.sbatch.items() if value is not False},
        }
        return {name: value for name, value in chosen.items() if value is not None}


KEYS = {"": [key.name for key in fields(Cluster)]}
# Options of sbatch that other keys set, or that the jobs' own bookkeeping needs as they are.
OURS = {key.replace("_", "-") for key in KEYS[""]} | {
    "time", "mem", "ntasks-per-node", "ntasks", "array", "output", "error", "open-mode", "signal", "job-name", "wrap",
    "requeue", "no-requeue", "export", "chdir", "parsable", "quiet", "wait", "test-only", "clusters",
}  # fmt: skip


def default_file() -> Path:
    """Return where a user keeps the settings of their cluster."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home) / "roadmap" / "cluster.yaml"


def read_cluster(path: Path | None, *, here: bool = False) -> Cluster:
    """Read a cluster's settings: the file, else the user's own (`default_file`), else the scheduler's defaults.

    Args:
        path: The file that was named, if one was.
        here: Whether the jobs are processes of this machine; the user's own file is about the cluster, so not for them.

    Raises:
        UserError: If the file is missing or does not fit; every misfit in one message.
    """
    if path is None:
        path = default_file()
        if here or not path.is_file():
            return Cluster()
    return read_yaml(path, Cluster, KEYS)


def check_local(cluster: Cluster) -> None:
    """Refuse what the local executor cannot give.

    Raises:
        UserError: If the settings want several machines.
    """
    if cluster.nodes > 1:
        raise UserError(f"nodes is {cluster.nodes}, but --executor local has this machine alone. Use --executor slurm.")
