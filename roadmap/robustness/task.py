"""Evaluating robustness as a task of jobs, and how far it is on each run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadmap.jobs.tasks import Setting
from roadmap.metrics.tasks import NetworkTask
from roadmap.metrics.trained import read_config
from roadmap.robustness.settings import Damaged, Settings, read_found
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig


@dataclass(frozen=True)
class RobustnessTask(NetworkTask):
    """Evaluating how robust a trained network is; parts are those of `Settings`."""

    settings: Settings

    def place(self, folder: Path) -> Path:
        """See `NetworkTask`."""
        return folder / run_folder.ROBUSTNESS_CLAIMS

    def missing(self, folder: Path) -> tuple[str, ...]:
        """See `NetworkTask`; all of them where the run's robustness.json is damaged."""
        from roadmap.robustness.evaluation import ask

        asked = ask(folder, read_config(folder), self.settings)
        try:
            found = read_found(folder)
        except Damaged:
            found = []
        known: dict[str, Any] = next((entry["parts"] for entry in found if entry["asked"] == asked), {})
        return tuple(part for part in self.settings.parts if part not in known)

    def cost(self, part: str) -> float:
        """Return about how many forward passes an image a part takes."""
        return self.settings.cost(part)

    def work(
        self, folder: Path, config: RunConfig, setting: Setting, device: str, report: Callable[[str], None]
    ) -> None:
        """See `NetworkTask`."""
        from roadmap.robustness.evaluation import evaluate

        evaluate(
            folder,
            config,
            self.settings,
            data_root=setting.data_root,
            device=device,
            report=report,
            write=setting.writer.write_json,
        )
