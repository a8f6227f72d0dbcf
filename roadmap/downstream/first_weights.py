"""Weights that backbones start from in place of those of classifiers trained here: `downstream --weights`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.common.errors import UserError
from roadmap.runs.config import RunConfig, WeightsConfig
from roadmap.study.initial_weights import TIMM, check_weights, find_weights, keep_layer_scale

if TYPE_CHECKING:
    from roadmap.study.plan import PlannedRun

EXPORT = "export"  # in place of a hash: each run starts from weights of its own


@dataclass(frozen=True)
class GivenWeights:
    """Which weights the backbone of each run starts from.

    Attributes:
        place: Where they lie, as for `roadmap.study.initial_weights.find_weights`.
        fingerprint: Hash of the file that all runs start from; `EXPORT` where each has its own.
        of_runs: Run id -> its weights.
    """

    place: str
    fingerprint: str
    of_runs: Mapping[str, WeightsConfig]

    @property
    def name(self) -> str:
        """What they are called beside numbers: by timm's name, that of the file, or that of the export and its study.

        An export lies in the folder of its study's report, under a name that it shares with others.
        """
        if self.place.startswith(TIMM):
            words = self.place.removeprefix(TIMM)
        else:
            path = Path(self.place).absolute()
            words = f"{path.parent.name} {path.name}" if self.fingerprint == EXPORT else path.stem
        return re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_")

    def of(self, folder: Path) -> WeightsConfig:
        """Return the weights that the run of a folder starts from."""
        return self.of_runs[folder.name]

    def start(self, config: RunConfig) -> RunConfig:
        """Return a run that starts from its weights; its network has a layer scale where these have one."""
        return keep_layer_scale(replace(config, weights=self.of_runs[config.id]))


def find_given_weights(place: str, planned: "Sequence[PlannedRun]") -> GivenWeights:
    """Find the weights that the backbones of a study start from, and check that they fit.

    Args:
        place: Where they lie, as for `roadmap.study.initial_weights.find_weights`.
        planned: The study's runs.

    Raises:
        UserError: If a run has none, or they are damaged or another network's.
    """
    of_runs = {run.config.id: find_weights(place, run.rungs[0], run.config.seed) for run in planned}
    fingerprint = EXPORT if Path(place).is_dir() else of_runs[planned[0].config.id].fingerprint
    given = GivenWeights(place, fingerprint, of_runs)
    for run in {(run.config.net, of_runs[run.config.id].fingerprint): run for run in planned}.values():
        try:
            check_weights(given.start(run.config))
        except UserError as error:
            raise UserError(f"rung '{run.rungs[0]}': {error}") from error
    return given
