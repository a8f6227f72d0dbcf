"""Work for this machine's processors: a process a core, or a GPU, each at one item after the other."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from roadmap.common.errors import UserError
from roadmap.common.machine import Machine, environment_for_jobs

LOOK_EVERY_S = 0.2

Tell = Callable[[str], None]
Item = TypeVar("Item", bound=Callable[[Tell], None])


def work_through(
    items: Sequence[Item], machine: Machine, hear: Callable[[Item, str], None], *, here: bool = False
) -> list[Exception | None]:
    """Call every item, the first ones first, in processes of their own, which end with this one whatever ends it.

    Args:
        items: What to call, with a function to tell what is at hand. They may be killed at any moment.
        machine: How many processes, and with how many threads.
        hear: Called here with an item and what it told.
        here: Whether to do it in this process instead, for a debugger.

    Returns:
        What each item raised, or None.

    Raises:
        UserError: If a process was killed.
    """
    if here:
        return [_try(item, hear) for item in items]
    context = multiprocessing.get_context("spawn")
    news, gpus = context.Queue(), context.Queue()
    jobs = min(machine.jobs, len(items))
    for number in range(jobs):
        gpus.put(number % machine.gpus if machine.gpus else None)
    with ProcessPoolExecutor(jobs, context, _begin, (news, gpus)) as pool:
        with environment_for_jobs(machine.threads):
            futures = [pool.submit(_do, number, item) for number, item in enumerate(items)]
        try:
            while not all(future.done() for future in futures):
                try:
                    number, told = news.get(timeout=LOOK_EVERY_S)
                except queue.Empty:
                    continue
                hear(items[number], told)
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    return [_error_of(future) for future in futures]


def _try(item: Item, hear: Callable[[Item, str], None]) -> Exception | None:
    try:
        item(lambda told: hear(item, told))
    except Exception as error:
        return error
    return None


def _error_of(future: "Future[None]") -> Exception | None:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise UserError(
            "a process of this command was killed (out of memory?). The same command goes on; --jobs 1 takes less."
        ) from error
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


# -- in the processes

_news: Any = None


def _begin(news: Any, gpus: Any) -> None:
    """Prepare a process: its GPU, and its end when the one that started it is gone."""
    global _news
    _news = news
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_it() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()
    gpu = gpus.get()
    if gpu is not None:
        import torch

        torch.cuda.set_device(gpu)


def _do(number: int, item: Callable[[Tell], None]) -> None:
    item(lambda told: _news.put((number, told)))
