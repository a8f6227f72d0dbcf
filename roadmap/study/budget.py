"""Budgets: what a study may cost in all, in runs, in hours of its devices or of the clock, or in money."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from roadmap.common.errors import UserError
from roadmap.study.networks import CLASSIFIERS, Networks
from roadmap.study.plan import PlannedRun

FORM = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)")
HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}  # of the clock, all jobs at work
DEVICE_HOURS = ("gpuh", "coreh")
RUNS = "runs"
EXAMPLES = "such as 60runs, 10m, 8h, 3d, 200gpuh, or with --price 500eur"


@dataclass(frozen=True)
class Budget:
    """What a study may cost in all, what its runs have cost before included.

    That the whole study counts makes one number mean the same whoever started which of its runs, and however often the
    command was interrupted.

    Attributes:
        text: As it was given, such as "200gpuh".
        limit: How much, in its unit.
        unit: "runs", "device-hours", "hours" or a currency.
        per_device_s: What a second of one device costs, in that unit; 0 where runs are counted.
    """

    text: str
    limit: float
    unit: str = RUNS
    per_device_s: float = 0.0

    @classmethod
    def parse(cls, text: str, *, jobs: int | None = None, price: float = 0.0) -> "Budget":
        """Read a budget as it is given.

        Args:
            text: A number and a unit, such as "10m", "8h", "200gpuh", "60runs" or "500eur".
            jobs: How many devices work at a time, for a budget in time; None where nobody knows.
            price: What an hour of a device costs, for a budget in money.

        Raises:
            UserError: If it is none, or what it takes to count it is not known.
        """
        found = FORM.fullmatch(text.lower())
        amount, unit = (float(found[1]), found[2]) if found else (0.0, "")
        if not 0 < amount < 1e9 or (len(unit) != 3 and unit not in (RUNS, *HOURS, *DEVICE_HOURS)):
            raise UserError(f"--budget: '{text}' is no budget. Say a number and its unit, {EXAMPLES}.")
        if unit == RUNS:
            if amount != int(amount):
                raise UserError(f"--budget: '{text}' is no whole number of runs. Say one, such as 60runs.")
            return cls(text, amount)
        if unit in DEVICE_HOURS:
            return cls(text, amount, "device-hours", 1 / 3600)
        if unit in HOURS:
            if jobs is None:
                raise UserError(
                    f"--budget: '{text}' is time of the clock, which on Slurm says nothing without the number of jobs "
                    "at once. Say it with --jobs, or give device-hours, such as 200gpuh."
                )
            return cls(text, amount * HOURS[unit], "hours", 1 / 3600 / jobs)
        if not price:
            raise UserError(f"--budget: '{text}' is money. Say with --price what an hour of a GPU (or core) costs.")
        return cls(text, amount, unit, price / 3600)

    def cost(self, device_s: float) -> float:
        """Return what a run costs that keeps one device for so many seconds."""
        return self.per_device_s * device_s if self.per_device_s else 1.0

    def spent(self, runs: Iterable[PlannedRun], networks: Networks = CLASSIFIERS) -> float:
        """Return what those of some runs have cost of which it is known what came of them.

        Args:
            runs: The runs.
            networks: What was trained of them: themselves, or a task.

        Raises:
            UserError: If a result is of another version.
        """
        outcomes = [outcome for run in runs if (outcome := networks.outcome(run.folder)) is not None]
        return sum(self.cost(outcome.device_s) for outcome in outcomes if outcome.device_s is not None)

    def in_words(self, amount: float) -> str:
        """Return an amount of its unit, such as "43 of 60 runs"."""
        digits = ".0f" if self.unit == RUNS or self.limit >= 100 else ".3g"
        return f"{amount:,{digits}} of {self.limit:,{digits}} {self.unit}"
