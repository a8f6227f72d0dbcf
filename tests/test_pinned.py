"""Run ids that no change may move in silence: whoever moves one says so in CHANGELOG."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from roadmap.cli import plan_commands
from roadmap.cli.commands import Exit
from roadmap.cli.options import study_of
from run_ladder import main

GOLDEN = Path(__file__).parent / "golden"
LAYER = """\
from dataclasses import replace

from torch import nn

from roadmap import NetConfig, own_layer


class Gate(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * self.conv(x).sigmoid()


def gate(net: NetConfig) -> NetConfig:
    return replace(net, block=replace(net.block, layers_after=(own_layer("pointwise1", Gate),)))
"""
LADDER = """\
extends: steps
rungs:
  - {id: gate, label: gate, step: gate, section: Micro Design}
"""
# Command line -> ids of the first and of the last run that it plans, by the program of 2026-11.
PINNED: dict[str, list[str]] = json.loads((GOLDEN / "run_ids.json").read_text())


def planned_ids(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the first and the last run that a command line plans, without what `plan` counts and prints of them."""
    studies = []

    def plan(options: Namespace) -> Exit:
        studies.append(study_of(options, assume_data=True))
        return Exit.OK

    monkeypatch.setattr(plan_commands, "plan", plan)
    (folder / "my_steps.py").write_text(LAYER)
    (folder / "my_ladder.yaml").write_text(LADDER)
    words = [word.replace("HERE", str(folder)).replace("GOLDEN", str(GOLDEN)) for word in command.split()]
    assert main(["plan", "--runs", str(folder / "runs"), *words]) == 0
    planned = studies[0].planned()
    return [planned[0].config.id, planned[-1].config.id]


@pytest.mark.usefixtures("own_steps")
@pytest.mark.parametrize("command", PINNED)
def test_a_command_line_plans_the_runs_that_it_always_planned(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned_ids(command, tmp_path, monkeypatch) == PINNED[command]
