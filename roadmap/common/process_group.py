"""Several processes that train one run together: who they are, what they agree on, who takes which images.

The processes are submitit's tasks (of a Slurm job or a local one), those of `torchrun`, or one alone; the code is the
same. All of them hold the whole network; a batch is shared out among them and the gradients are averaged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from roadmap.common.log import say

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch._C._distributed_c10d import Store

T = TypeVar("T")
JOIN_TIMEOUT = timedelta(minutes=10)
NOT_JOINED = 76  # exit code; `roadmap.jobs.slurm_arrays.TEARDOWN` knows it


class LostProcess(Exception):
    """Another process of the group is gone."""


@dataclass(frozen=True)
class Group:
    """The processes of a run, as one of them sees it.

    Attributes:
        rank: Our number; 0 is the one that writes.
        size: How many there are.
        store: What the processes share beside tensors; None for one alone.
    """

    rank: int = 0
    size: int = 1
    store: "Store | None" = None

    def __deepcopy__(self, memo: Any) -> "Group":
        """Return the same processes: a copied network belongs to them too."""
        return self

    def agree(self, value: T) -> T:
        """Return rank 0's value, on every process."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return what each process has, in the order of their numbers, on every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def mean(self, values: "Tensor") -> "Tensor":
        """Return the mean over the processes of a tensor that each of them has, added up in the order of their numbers.

        `all_reduce` would round a value by its place in the tensor.
        """
        if self.size == 1:
            return values
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total / self.size

    def share(self, batch: int, ghost_batch: int | None = None) -> "Tensor":
        """Return which images of a batch are ours, shape (batch / size,): a piece from its start, one from its end.

        So that image i and image -1 - i, which mixup and cutmix mix, are with the same process. A batch of ghost
        batches is shared out in whole ones, of consecutive images; so is a piece of a batch without pairs for all.
        """
        import torch

        if ghost_batch or batch % (2 * self.size):
            return torch.arange(batch).chunk(self.size)[self.rank]
        piece = batch // (2 * self.size) if self.size > 1 else batch
        start = self.rank * piece
        front = torch.arange(start, start + piece)
        return front if self.size == 1 else torch.cat([front, batch - 1 - front.flip(0)])

    def first_ghost(self, batch: int, ghost_batch: int | None) -> int:
        """Return the number of our first ghost batch, among all those of a batch."""
        return self.rank * (batch // (ghost_batch * self.size)) if ghost_batch else 0

    def interleave(self, ours: "Tensor") -> "Tensor":
        """Return all processes' rows in order, where process r of n has rows r, r + n, r + 2n, ...; on the CPU."""
        if self.size == 1:
            return ours
        import torch
        import torch.distributed as dist

        counts = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(ours)]))
        most = max(int(count) for count in counts)
        padded = torch.zeros(most, *ours.shape[1:], dtype=ours.dtype)
        padded[: len(ours)] = ours
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        total = sum(int(count) for count in counts)
        return torch.stack(parts, 1).flatten(0, 1)[:total]

    def share_buffers(self, model: "nn.Module") -> None:
        """Give every process rank 0's buffers (BatchNorm's running statistics)."""
        if self.size > 1:
            import torch.distributed as dist

            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def tell(self, error: BaseException) -> None:
        """Let rank 0 know why this process leaves."""
        if self.store is not None and self.rank and not is_loss(error):
            self.store.set("error", f"process {self.rank}: {type(error).__name__}: {error}")

    def cause(self, error: BaseException) -> BaseException:
        """Return what is behind an error on rank 0: another process's own error, or its loss, or the error itself."""
        import torch.distributed as dist

        if self.store is None or not is_loss(error):
            return error
        try:
            self.store.wait(["error"], timedelta(seconds=5))
        except dist.DistError:
            return LostProcess(f"another process of the run is gone ({str(error).splitlines()[0]})")
        return RuntimeError(self.store.get("error").decode())


def is_loss(error: BaseException) -> bool:
    """Whether an error is what a process gets to see when another one of its group is gone."""
    import torch.distributed as dist

    # Between processors torch raises no error of its own kind, but names the file of gloo that lost the connection.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


ALONE = Group()


@contextmanager
def join() -> Iterator[Group]:
    """Find the processes of this job and connect them; yields `ALONE` where there is one."""
    address = _find()
    if address is None:
        yield ALONE
        return
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    rank, size, local_rank, host, port = address
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    # torchrun listens itself, and when it starts us anew it still has what the last start left.
    listen = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store: Store = PrefixStore(f"start {start}", TCPStore(host, port, size, listen, JOIN_TIMEOUT))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=size)
    except dist.DistError as error:
        say(f"process {rank} of {size} does not reach the others at {host}:{port}: {error}")
        raise SystemExit(NOT_JOINED) from error
    try:
        yield Group(rank, size, PrefixStore("roadmap", store))
    finally:
        dist.destroy_process_group()


def _find() -> tuple[int, int, int, str, int] | None:
    """Return (rank, size, local rank, host, port) from what started this process; None for one alone."""
    env = os.environ
    if under_torchrun():
        rank, size, local_rank = (int(env[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return (rank, size, local_rank, env["MASTER_ADDR"], int(env["MASTER_PORT"])) if size > 1 else None
    if "SUBMITIT_EXECUTOR" not in env:
        return None
    import submitit

    job = submitit.JobEnvironment()
    if job.num_tasks == 1:
        return None
    host = "127.0.0.1" if job.num_nodes == 1 else job.hostnames[0]
    # A port that jobs on the same machine at the same time do not share, below those of outgoing connections; where it
    # was taken nevertheless, the job's next start has another.
    start = int(env.get("SLURM_RESTART_COUNT", "0"))
    port = 15_000 + (int(job.raw_job_id) * 7 + start) % 17_000
    return job.global_rank, job.num_tasks, job.local_rank, host, port


def under_torchrun() -> bool:
    """Whether `torchrun` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def my_rank() -> int:
    """Return our number among the processes that `torchrun` started, before they are connected; 0 for one alone."""
    return int(os.environ.get("RANK", "0")) if under_torchrun() else 0
