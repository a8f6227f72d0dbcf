"""Who else is told how a run goes: TensorBoard, or a function of your own (to tell Weights & Biases, say)."""

import importlib
import importlib.util
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.runs.config import read_run_file

# What a logger is: it takes the number of the step and values by name. About once a second they are train/loss (the
# mean since the last time), train/lr and train/images_per_s; at the end all numbers of the result row, as test/top1.
Log = Callable[[int, Mapping[str, float]], None]
TENSORBOARD = "tensorboard"


def check_logger(name: str) -> None:
    """Refuse a logger that a job could not make.

    Args:
        name: "tensorboard", or MODULE:FUNCTION; the function takes what run.json holds and the run's folder, and
            returns a `Log`.

    Raises:
        UserError: If there is none of that name.
    """
    if name == TENSORBOARD:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard: the package is not installed. pip install tensorboard")
        return
    _find(name)


def _find(name: str) -> Callable[[dict[str, Any], Path], Log]:
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (Exception, SystemExit) as error:  # a module may raise what it likes
        raise UserError(f"--logger {name}: cannot be imported ({type(error).__name__}: {error}).") from error
    if not callable(found):
        raise UserError(f"--logger {name}: no function. Say MODULE:FUNCTION, of a module that Python finds.")
    return found  # type: ignore[no-any-return]


def _to_tensorboard(about: dict[str, Any], folder: Path, step: int) -> Log:
    """Write to runs/tensorboard/, in a folder that is called after the run's rungs, its seed and its id."""
    from torch.utils.tensorboard import SummaryWriter

    name = "+".join(about.get("rungs") or ["run"])
    writer = SummaryWriter(folder.parent / TENSORBOARD / f"{name}-{folder.name}", purge_step=step + 1)

    def log(step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)
        writer.flush()

    return log


class Loggers:
    """The loggers of a run; one that fails is dropped, and costs the run nothing else.

    Args:
        names: As for `check_logger`.
        folder: The run's folder.
        step: From which step the run goes on.
    """

    def __init__(self, names: Sequence[str], folder: Path, step: int) -> None:
        self._logs: dict[str, Log] = {}
        for name in names:
            with self._dropping(name):
                about: dict[str, Any] = dict(read_run_file(folder) or {})
                is_own = name != TENSORBOARD
                self._logs[name] = _find(name)(about, folder) if is_own else _to_tensorboard(about, folder, step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell all of them."""
        for name, log in list(self._logs.items()):
            with self._dropping(name):
                log(step, dict(values))  # its own, to change as it likes

    def finish(self, step: int, row: Mapping[str, Any]) -> None:
        """Tell all of them how a run ended."""
        numbers = {f"test/{name}": row[name] for name in ("top1", "top5", "nll", "ece", "top1_ema")}
        self.log(step, {name: value for name, value in numbers.items() if value is not None})

    @contextmanager
    def _dropping(self, name: str) -> Iterator[None]:
        """Drop a logger that raises, or ends in whatever way."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # a Ctrl-C that is meant for the program; other threads get none
            text = "".join(traceback.format_exception_only(error)).strip().removeprefix(f"{type(error).__module__}.")
            say(f"logger {name}: {text}. The run goes on without it.")
            self._logs.pop(name, None)
