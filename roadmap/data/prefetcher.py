"""Batches on the run's device: copied and prepared there, on a GPU while the step before is still at work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

Raw = TypeVar("Raw")
Ready = tuple[Tensor, Tensor]


class Prefetcher(Generic[Raw]):
    """Prepares batches (images and labels) on a device; on a GPU the next one ahead of time, on its own stream."""

    def __init__(self, device: str, prepare: Callable[[Raw], Ready]) -> None:
        self.prepare = prepare
        # One for all epochs: the allocator keeps a pool of memory for each stream.
        self.stream = None if device == "cpu" else torch.cuda.Stream(device)

    def __call__(self, batches: Iterable[Raw]) -> Iterator[Ready]:
        """Yield what `prepare` makes of each batch, ready for the stream that is current where it is taken."""
        if self.stream is None:
            yield from map(self.prepare, batches)
            return
        ahead: tuple[Ready, torch.cuda.Event] | None = None
        for batch in batches:
            with torch.cuda.stream(self.stream):
                ready = self.prepare(batch)
                copied = self.stream.record_event()
            if ahead is not None:
                yield _take(*ahead)
            ahead = ready, copied
        if ahead is not None:
            yield _take(*ahead)


def _take(ready: Ready, copied: torch.cuda.Event) -> Ready:
    """Let the current stream wait for a batch, and the allocator know that this stream uses it."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for tensor in ready:
        tensor.record_stream(current)
    return ready
