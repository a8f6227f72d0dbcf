"""`check`: a problem is reported once, at the step that caused it."""

import json
from pathlib import Path

import pytest

import run_ladder

Checked = tuple[str, dict[str, dict[str, object]]]  # what `check` prints, and its rows by rung

STEPS = """\
from dataclasses import replace

from torch import nn

from roadmap import NetConfig, own_layer


class Half(nn.Module):
    def __init__(self, in_width, width, stride):
        super().__init__()
        self.conv = nn.Conv2d(in_width, width, 2 * stride, 2 * stride)

    def forward(self, x):
        return self.conv(x)


class Unused(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x


def half(net: NetConfig) -> NetConfig:
    return replace(net, stem=own_layer("stem", Half))


def unused(net: NetConfig) -> NetConfig:
    return replace(net, block=replace(net.block, layers_after=(own_layer("spatial", Unused),)))


def usual(net: NetConfig) -> NetConfig:
    return replace(net, stem="resnet")
"""
LADDER = """\
bases:
  resnet50: {label: ResNet-50, result: End}
rungs:
  - {id: start, label: start, recipe: plain}
  - {id: sound, label: sound, step: gelu}
  - {id: half, label: half, step: half}
  - {id: innocent, label: innocent, step: kernel_size, args: {size: 5}}
  - {id: branch, label: branch, step: unused, from: sound, adopted: false}
  - {id: recipe, label: recipe, step: mixup}
  - {id: after, label: after, step: fewer_norms}
  - {id: mended, label: mended, step: usual}
"""


@pytest.fixture
def found(tmp_path: Path, capsys: pytest.CaptureFixture[str], own_steps: None) -> Checked:
    """Check the ladder."""
    (tmp_path / "my_steps.py").write_text(STEPS)
    (tmp_path / "mine.yaml").write_text(LADDER)
    words = ["check", str(tmp_path / "mine.yaml"), "--steps-module", str(tmp_path / "my_steps.py"), "--json"]
    assert run_ladder.main(words) == 1
    captured = capsys.readouterr()
    return " ".join(captured.err.split()), {row["rung"]: row for row in map(json.loads, captured.out.splitlines())}


def test_the_step_that_broke_a_shape_is_named_once_and_not_those_after_it(
    found: Checked,
) -> None:
    text, rows = found
    blamed = {rung: list(row["problems"]) for rung, row in rows.items() if row["problems"]}
    assert blamed == {"half": ["builds"], "branch": ["trains"]}
    inherited = {rung: row["inherited"] for rung, row in rows.items() if row["inherited"]}
    assert inherited == {rung: {"builds": "half"} for rung in ("innocent", "recipe", "after")}
    wrong = "layer 'Half' (stem): maps (2, 3, 64, 64) to (2, 4, 16, 16), but must map it to (2, 4, 32, 32)"
    assert text.count(wrong) == 1
    assert "Inherited by innocent, recipe, after." in text
    assert "branch: trains: no gradient reaches" in text


def test_a_network_that_cannot_be_built_is_not_counted(found: Checked) -> None:
    _, rows = found
    assert [rung for rung, row in rows.items() if not row["macs"]] == ["half", "innocent", "recipe", "after"]
    assert rows["mended"]["problems"] == rows["mended"]["inherited"] == {}


def test_a_wrong_shape_is_refused_when_a_study_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own_steps: None
) -> None:
    (tmp_path / "my_steps.py").write_text(STEPS)
    (tmp_path / "mine.yaml").write_text(LADDER)
    words = ["plan", "--base", "resnet50", "--steps", str(tmp_path / "mine.yaml"), "--recipe", "smoke"]
    words += ["--steps-module", str(tmp_path / "my_steps.py"), "--runs", str(tmp_path / "runs")]
    assert run_ladder.main(words) == 2
    assert "layer 'Half' (stem): maps (1, 1, 32, 32) to (1, 8, 4, 4)" in capsys.readouterr().err
