"""The figure of several tasks has a row a step and a panel a metric, each at its own scale."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.figures import Words, draw_tasks
from analysis.metrics import declared
from analysis.verdicts import verdict_table
from roadmap.runs.metrics import Metric

LADDER = pd.DataFrame(
    {
        "rung": ["start", "wide", "deep"],
        "label": ["start", "wider", "deeper"],
        "section": ["", "One", "Two"],
        "adopted": [True, True, False],
        "parent": [None, "start", "wide"],
    }
)
PAIRS = [("wide", "start"), ("deep", "wide")]
STEP = {"top1": (2.0, 0.0), "miou": (-30.0, 1.0)}  # what each step does


@pytest.fixture
def verdicts() -> pd.DataFrame:
    noise = np.random.default_rng(0)
    rows = []
    for place, rung in enumerate(LADDER["rung"]):
        for seed in range(4):
            row = {"rung": rung, "seed": seed, "run": f"{rung}-{seed}", "state": "finished"}
            rows.append(row | {m: 50 + sum(STEP[m][:place]) + noise.normal(0, 0.1) for m in STEP})
    frame = pd.DataFrame(rows)
    declared(SimpleNamespace(frame=frame, metrics={"miou": Metric("mIoU (%)", margin=0.5)}, notes=()))
    return pd.concat([verdict_table(frame, PAIRS, metric) for metric in STEP])


def test_each_panel_shows_its_metrics_changes_in_the_same_rows(verdicts: pd.DataFrame) -> None:
    figure = draw_tasks(verdicts, list(STEP), LADDER, Words(title="Tasks", axis="Change"))
    assert len(figure.axes) == 2
    heights: dict[str, set[float]] = {"wide": set(), "deep": set()}
    for axes, metric in zip(figure.axes, STEP, strict=True):
        lines = {str(line.get_gid()): line for line in axes.lines}
        for step in heights:
            [row] = verdicts[(verdicts["metric"] == metric) & (verdicts["step"] == step)].to_dict("records")
            x, y = lines[f"change-{step}"].get_data()
            assert float(x[0]) == pytest.approx(row["delta"])
            assert list(lines[f"interval-{step}"].get_xdata()) == pytest.approx([row["ci_low"], row["ci_high"]])
            heights[step].add(float(y[0]))
    assert all(len(found) == 1 for found in heights.values())
    first, second = (axes.get_position() for axes in figure.axes)
    assert first.x1 < second.x0
    assert figure.axes[0].get_xlim()[0] > -5  # the other metric's fall of 30 points does not squeeze this one
    texts = [text.get_text() for text in figure.texts]
    assert {"top-1 (%)", "mIoU (%)", "wider", "deeper"} <= set(texts)
    assert "In italics: tried and not adopted." in texts


def test_a_metric_that_lacks_a_step_leaves_its_row_empty(verdicts: pd.DataFrame) -> None:
    some = verdicts[(verdicts["metric"] == "top1") | (verdicts["step"] == "wide")]
    figure = draw_tasks(some, list(STEP), LADDER, Words(title="Tasks", axis="Change"))
    gids = [{str(line.get_gid()) for line in axes.lines} for axes in figure.axes]
    assert "change-deep" in gids[0]
    assert "change-deep" not in gids[1]
