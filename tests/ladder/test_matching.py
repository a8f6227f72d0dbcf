"""FLOPs matching: the width or depth whose multiply-adds come nearest, on rungs and on whole ladders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.figures.roadmap import Chart, draw_roadmap
from analysis.ladder_table import ladder_table
from analysis.report.tables import markdown
from roadmap.common.errors import UserError
from roadmap.ladder.ladder import Ladder, read_ladder
from roadmap.ladder.schema import Match
from roadmap.ladder.steps import stage_ratio
from roadmap.networks.config import NetConfig, with_blocks, with_width
from roadmap.networks.cost import count_macs, fit_depth, fit_width
from roadmap.networks.families import BASES
from roadmap.recipe import read_recipe
from roadmap.runs.config import DataConfig
from roadmap.study.spec import count_as_trained
from tests.cli.test_cli import run
from tests.samples import LADDER, LADDERS, PAPER

RUNGS = {rung.id: rung.net for rung in PAPER.climb("resnet50")}
BASE = count_macs(BASES["resnet50"])


def matched(base: str = "resnet50", **match: Any) -> Ladder:
    ladder = next(ladder for ladder in LADDERS.values() if base in ladder.bases)
    return ladder.model_copy(update={"match": Match(**match)})


@settings(max_examples=6, deadline=None, derandomize=True)
@given(width=st.integers(2, 20), gmacs=st.floats(0.001, 0.02), multiple=st.sampled_from([1, 3, 4]))
def test_no_other_width_comes_nearer(width: int, gmacs: float, multiple: int) -> None:
    net = NetConfig(depths=(1, 1), widths=(width, 2 * width), stem="patchify")
    fitted = fit_width(net, gmacs * 1e9, multiple=multiple)
    assert fitted.widths[0] % multiple == 0
    others = [count_macs(with_width(net, multiple * units)) for units in range(1, 60)]
    assert abs(count_macs(fitted) - gmacs * 1e9) == min(abs(other - gmacs * 1e9) for other in others)


def test_no_other_depth_comes_nearer() -> None:
    fitted = fit_depth(RUNGS["depthwise_conv"], BASE)
    others = [count_macs(with_blocks(RUNGS["depthwise_conv"], blocks)) for blocks in range(30, 42)]
    assert abs(count_macs(fitted) - BASE) == min(abs(other - BASE) for other in others)
    assert fitted.widths == RUNGS["depthwise_conv"].widths


@given(blocks=st.integers(1, 80), depths=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_blocks_are_shared_out_as_they_were_each_stage_with_one_at_least(blocks: int, depths: list[int]) -> None:
    net = NetConfig(depths=tuple(depths), widths=(8,) * len(depths))
    shared = with_blocks(net, blocks).depths
    assert min(shared) >= 1
    if all(depth * blocks >= sum(depths) for depth in depths):
        assert sum(shared) == blocks
        assert all(abs(n - depth * blocks / sum(depths)) < 1 for n, depth in zip(shared, depths, strict=True))
    assert with_blocks(net, sum(depths)) == net


def test_matching_resnet_200s_stage_ratio_to_the_base_finds_the_papers_84() -> None:
    deep = stage_ratio(BASES["resnet200"], blocks=(3, 3, 27, 3))
    assert fit_width(deep, count_macs(BASES["resnet200"]), multiple=4).widths == (84, 168, 336, 672)
    assert fit_width(deep, count_macs(BASES["resnet200"])).widths[0] == 85  # to the last channel


def test_matching_resnet_50_after_depthwise_finds_less_than_the_papers_96_which_is_swins_width() -> None:
    fitted = fit_width(RUNGS["depthwise_conv"], BASE)
    assert fitted.widths[0] == 85
    assert count_macs(fitted) / BASE == pytest.approx(1, abs=0.02)
    assert count_macs(RUNGS["increase_width"]) / BASE == pytest.approx(1.29, abs=0.01)


@pytest.mark.parametrize(("base", "to"), [("resnet50", "previous"), ("mobilenet_v2", "base")])
def test_a_whole_ladder_is_matched_and_says_by_how_much_it_misses(base: str, to: str) -> None:
    rungs = {rung.id: rung for rung in matched(base, to=to).climb(base)}
    assert len({rung.net for rung in rungs.values()}) > 8
    for rung in rungs.values():
        if rung.match is None:
            assert rung.net == BASES[base]
            continue
        target = BASES[base] if to == "base" else rungs[rung.parent or ""].net
        assert rung.match_miss == count_macs(rung.net) / count_macs(target) - 1
        assert abs(rung.match_miss) < 0.05
        assert rung.paper.top1 is None  # nobody has published these


def test_a_step_on_the_width_alone_has_no_rung_on_a_matched_ladder_and_the_next_comes_from_the_one_before() -> None:
    rungs = {rung.id: rung for rung in matched(to="base").climb("resnet50")}
    assert "increase_width" not in rungs
    assert rungs["inverted_bottleneck"].parent == "depthwise_conv"


def test_a_proxy_is_matched_as_it_is_trained() -> None:
    recipe = read_recipe("fashion")
    count = count_as_trained(recipe, DataConfig("some", "0123", 10, 1, 1000))
    rungs = matched(to="base").counted_by(count).climb("resnet50")
    base = count(BASES["resnet50"])
    misses = [count(rung.net) / base - 1 for rung in rungs]
    assert misses == pytest.approx([rung.match_miss for rung in rungs])
    assert all(rung.is_matched for rung in rungs)
    full = matched(to="base").climb("resnet50")[-1]
    assert abs(count(full.net) / base - 1) > 0.1  # what matching at full scale alone would have left


def write_ladder(folder: Path, match: Any, step: int = 1) -> Path:
    content = yaml.safe_load(LADDER)
    content["rungs"][step]["match"] = match
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_one_step_of_a_ladder_can_be_matched(tmp_path: Path) -> None:
    path = write_ladder(tmp_path, {"to": "previous", "by": "depth"}, step=2)
    _, wide, big = read_ladder(path).climb("resnet50")
    assert (wide.match, big.match) == (None, Match(to="previous", by="depth"))
    assert count_macs(big.net) / count_macs(wide.net) == pytest.approx(1 + big.match_miss)
    assert count_macs(big.net) < count_macs(replace(big.net, depths=wide.net.depths))


@pytest.mark.parametrize(
    ("match", "step", "words"),
    [
        ({"to": "bass"}, 1, ["mine.yaml:", "match", "bass"]),
        ({"to": -1.0}, 1, ["match", "greater than 0"]),
        ({"by": "kernel"}, 1, ["'width' or 'depth'"]),
        ({"multiple": 0}, 1, ["multiple", "greater than or equal to 1"]),
        ({"two": "base"}, 1, ["two", "Did you mean 'to'?"]),
        ({}, 0, ["rung 'start': is where the ladder starts", "Take 'match' out"]),
    ],
)
def test_a_match_that_means_nothing_is_refused_with_its_place(
    tmp_path: Path, match: Any, step: int, words: list[str]
) -> None:
    path = write_ladder(tmp_path, match, step)
    with pytest.raises(UserError) as error:
        read_ladder(path)
    assert [word for word in words if word not in str(error.value)] == []


def test_plan_says_of_every_rung_whether_it_is_matched_and_by_how_much_it_misses(tmp_path: Path) -> None:
    ended = run(tmp_path, "plan", "--base", "resnet50", "--match", "base", "--until", "depthwise_conv")
    assert ended.code == 0
    assert "FLOPs-matched by width" in ended.out
    assert ended.out.count("matched, ") == 3
    ended = run(tmp_path, "plan", "--base", "resnet50", "--match", "bass")
    assert (ended.code, ended.out) == (2, "")
    assert "--match: 'bass' is nothing to match to" in ended.err


def test_a_bar_that_is_not_matched_is_marked_in_figure_and_tables_with_one_note() -> None:
    rungs = matched(to="base", multiple=32).climb("resnet50")
    off = [rung.id for rung in rungs if not rung.is_matched]
    assert 1 < len(off) < len(rungs)
    runs = pd.DataFrame({"rung": [rung.id for rung in rungs]})
    runs = runs.assign(seed=0, state="finished", top1=80.0, macs=4e9, params=1e6, images_per_s=1.0)
    table = ladder_table(runs, rungs)
    text = markdown(table)
    assert [line.split()[1] for line in text.splitlines() if "4.00 G [1]" in line] == off
    assert text.count("not matched: over 2% from the base's") == 1
    figure = draw_roadmap(table, Chart(title="Matched", axis="top-1", start="ResNet-50", result="End"))
    marked = [str(text.get_gid()) for text in figure.texts if str(text.get_gid()).startswith("mark-")]
    assert marked == [f"mark-{rung}" for rung in off]
