from pathlib import Path
from typing import Any

import pytest
import yaml

from roadmap import read_ladder
from roadmap.common.errors import UserError
from roadmap.common.fields import diff
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung, select
from roadmap.networks.families import BASES, convnext
from roadmap.recipe import read_recipe
from tests.samples import LADDER, PAPER, RECIPE

# Liu et al. 2022, Tables 10 and 11: (top-1, its standard deviation over 3 seeds, 1e9 multiply-adds) as printed for the
# ladder from ResNet-50, (top-1, 1e9 multiply-adds) for the one from ResNet-200.
TABLES: dict[str, tuple[tuple[float, float | None, float], tuple[float, float]]] = {
    "baseline_original": ((76.13, None, 4.09), (78.20, 15.01)),
    "baseline": ((78.82, 0.07, 4.09), (81.14, 15.01)),
    "stage_ratio": ((79.36, 0.07, 4.53), (81.33, 14.52)),
    "patchify_stem": ((79.51, 0.18, 4.42), (81.59, 14.38)),
    "depthwise_conv": ((78.28, 0.08, 2.35), (80.54, 7.23)),
    "increase_width": ((80.50, 0.02, 5.27), (81.85, 16.76)),
    "inverted_bottleneck": ((80.64, 0.03, 4.64), (82.64, 15.68)),
    "move_up_depthwise": ((79.92, 0.08, 4.07), (82.04, 14.63)),
    "kernel_5": ((80.35, 0.08, 4.10), (82.32, 14.70)),
    "kernel_7": ((80.57, 0.14, 4.15), (82.30, 14.81)),
    "kernel_9": ((80.57, 0.06, 4.21), (82.27, 14.95)),
    "kernel_11": ((80.47, 0.11, 4.29), (82.18, 15.13)),
    "gelu": ((80.62, 0.14, 4.15), (82.19, 14.81)),
    "fewer_activations": ((81.27, 0.06, 4.15), (82.71, 14.81)),
    "fewer_norms": ((81.41, 0.09, 4.15), (83.17, 14.81)),
    "layer_norm": ((81.47, 0.09, 4.46), (83.35, 14.81)),
    "separate_downsampling": ((81.97, 0.06, 4.49), (83.60, 15.35)),
}
# The fields that each step changes, from both bases unless it says otherwise: section 2 of the paper.
CHANGES = {
    "baseline": set(),
    "stage_ratio": {"depths"},  # and widths from ResNet-200
    "patchify_stem": {"stem"},
    "depthwise_conv": {"block.depthwise"},
    "increase_width": {"widths"},
    "inverted_bottleneck": {"block.residual_ratio", "block.hidden_ratio"},
    "move_up_depthwise": {"block.spatial_first"},
    "gelu": {"block.act"},
    "fewer_activations": {"block.act_after"},
    "fewer_norms": {"block.norm_after"},
    "layer_norm": {"block.norm"},
    "separate_downsampling": {"downsample", "boundary_norms", "final_norm"},
}


@pytest.fixture(params=PAPER.bases)
def rungs(request: pytest.FixtureRequest) -> dict[str, Rung]:
    return {rung.id: rung for rung in PAPER.climb(request.param)}


def test_the_papers_ladder_has_its_17_rungs_in_order(rungs: dict[str, Rung]) -> None:
    assert list(rungs) == list(TABLES)


def test_the_published_numbers_are_those_of_tables_10_and_11() -> None:
    for entry in PAPER.rungs:
        fifty, two_hundred = entry.published["resnet50"], entry.published["resnet200"]
        found = ((fifty.top1, fifty.top1_std, fifty.gmacs), (two_hundred.top1, two_hundred.gmacs))
        assert found == TABLES[entry.id], entry.id
        assert two_hundred.top1_std is None  # one run each


def test_the_errata_keep_the_print_beside_the_true_value() -> None:
    rungs = {rung.id: rung.paper for rung in PAPER.climb("resnet50")}
    found = {name: (paper.gmacs, paper.true_gmacs) for name, paper in rungs.items() if paper.gmacs != paper.true_gmacs}
    assert found == {"layer_norm": (4.46, 4.146), "separate_downsampling": (4.49, 4.456)}
    assert all("Table 10 prints" in paper.erratum.note for paper in rungs.values() if paper.erratum)


def test_seeds_and_references_are_the_papers() -> None:
    found = {
        name: (base.source, base.seeds, base.result, base.reference.label, base.reference.top1, base.reference.gmacs)
        for name, base in PAPER.bases.items()
        if base.reference
    }
    assert found == {
        "resnet50": ("Table 10", 3, "ConvNeXt-T", "Swin-T", 81.30, 4.50),
        "resnet200": ("Table 11", 1, "ConvNeXt-B", "Swin-B", 83.50, 15.43),
    }


def test_only_kernels_5_9_and_11_are_side_branches(rungs: dict[str, Rung]) -> None:
    assert [rung.id for rung in rungs.values() if not rung.adopted] == ["kernel_5", "kernel_9", "kernel_11"]


def test_each_rung_comes_from_the_last_adopted_one_or_from_the_one_it_names(rungs: dict[str, Rung]) -> None:
    adopted = [name for name in TABLES if name not in ("kernel_5", "kernel_9", "kernel_11")]
    expected: dict[str, str | None] = dict(zip(adopted, [None, *adopted], strict=False))
    expected |= dict.fromkeys(["kernel_5", "kernel_7", "kernel_9", "kernel_11"], "move_up_depthwise")
    assert {name: rung.parent for name, rung in rungs.items()} == expected
    assert (rungs["gelu"].parent, rungs["baseline"].parent) == ("kernel_7", "baseline_original")


def test_each_step_changes_what_the_paper_says_and_nothing_else(rungs: dict[str, Rung]) -> None:
    kernels = {f"kernel_{size}": {"block.kernel_size"} for size in (5, 7, 9, 11)}
    deep = rungs["baseline"].net == BASES["resnet200"]
    expected = CHANGES | kernels | ({"stage_ratio": {"depths", "widths"}} if deep else {})
    assert {
        name: set(diff(rungs[rung.parent].net, rung.net)) for name, rung in rungs.items() if rung.parent
    } == expected


def test_kernels_are_those_of_their_names(rungs: dict[str, Rung]) -> None:
    assert [rungs[f"kernel_{size}"].net.block.kernel_size for size in (5, 7, 9, 11)] == [5, 7, 9, 11]


def test_every_rung_but_the_start_stands_under_a_heading_of_figure_2(rungs: dict[str, Rung]) -> None:
    assert {rung.section for rung in rungs.values()} == {None, *PAPER.sections}
    assert [rung.id for rung in rungs.values() if rung.section is None] == ["baseline_original"]
    order = [PAPER.sections.index(rung.section) for rung in rungs.values() if rung.section]
    assert order == sorted(order)


def test_only_the_start_trains_under_the_plain_recipe(tmp_path: Path, rungs: dict[str, Rung]) -> None:
    for name, plain in (("full", "simple"), ("simple", "simple")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(RECIPE | {"name": name, "plain": plain}))
    target = read_recipe(str(tmp_path / "full.yaml"))
    trained = {name: rung.recipe(target).name for name, rung in rungs.items()}
    assert trained.pop("baseline_original") == "simple"
    assert set(trained.values()) == {"full"}


def test_climbing_from_an_unknown_base_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"unknown base 'resnet5'. Did you mean 'resnet50'\? Known: resnet50, resnet200"
    ):
        PAPER.climb("resnet5")


def test_a_ladder_of_ones_own_has_arguments_for_all_bases_or_for_each(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(LADDER)
    ladder = read_ladder(path)
    assert [rung.net.widths[0] for rung in ladder.climb("resnet50")] == [64, 96, 96]
    assert [rung.net.widths[0] for rung in ladder.climb("resnet200")] == [64, 128, 128]
    assert [rung.net.block.kernel_size for rung in ladder.climb("resnet200")] == [3, 3, 5]


EXTENDS = """\
extends: steps
sections: [Own]
rungs:
  - {id: small_again, label: k, section: Own, step: kernel_size, from: kernel_9, args: {size: 3}, adopted: false}
  - {id: deeper, label: deeper, section: Own, step: stage_ratio, args: {blocks: [3, 3, 27, 3]}}
"""


def extended(folder: Path, **changes: str) -> Ladder:
    text = EXTENDS
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "own.yaml").write_text(text)
    return read_ladder(folder / "own.yaml")


def test_a_ladder_that_extends_another_goes_on_from_its_rungs(tmp_path: Path) -> None:
    rungs = {rung.id: rung for rung in PAPER.climb("resnet50")}
    climbed = extended(tmp_path).climb("resnet50")
    assert [rung.id for rung in climbed] == [*rungs, "small_again", "deeper"]
    assert {rung.id: rung.net for rung in climbed if rung.id in rungs} == {r.id: r.net for r in rungs.values()}
    side, deeper = climbed[-2:]
    assert (side.parent, side.net) == ("kernel_9", rungs["move_up_depthwise"].net)
    assert (deeper.parent, deeper.net) == ("separate_downsampling", convnext("small", layer_scale=None))
    assert extended(tmp_path).bases == read_ladder().bases


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("extends: steps", "extends: setps", r"own\.yaml:1: unknown ladder 'setps'\. Did you mean 'steps'\?"),
        (
            "kernel_9",
            "kernel_8",
            r"own\.yaml:4: rung 'small_again': from: unknown rung 'kernel_8'\. Did you mean 'kernel_",
        ),
        ("id: deeper", "id: gelu", r"own\.yaml:5: rung 'gelu': stands twice"),
        ("stage_ratio", "stage_ration", r"own\.yaml:5: .*'stage_ratio'\?.* Your own\? Say --steps-module FILE"),
        ("adopted", "adopt", r"own\.yaml:4: unknown key 'rungs\.0\.adopt'"),
    ],
)
def test_what_is_wrong_with_a_ladder_that_extends_another_has_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        extended(tmp_path, **{old: new})


def test_a_ladder_without_published_numbers_has_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(LADDER)
    papers = [rung.paper for rung in read_ladder(path).climb("resnet50")]
    assert all((paper.top1, paper.gmacs, paper.true_gmacs) == (None, None, None) for paper in papers)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, list(TABLES)),
        ({"only": ["gelu", "baseline"]}, ["baseline", "gelu"]),
        ({"until": "stage_ratio"}, ["baseline_original", "baseline", "stage_ratio"]),
        ({"only": ["stage_ratio", "baseline"], "until": "gelu"}, ["baseline", "stage_ratio"]),
        ({"until": "baseline_original"}, ["baseline_original"]),
    ],
)
def test_rungs_are_selected_by_name_and_come_in_the_ladders_order(
    rungs: dict[str, Rung], wanted: dict[str, Any], expected: list[str]
) -> None:
    assert [rung.id for rung in select(list(rungs.values()), **wanted)] == expected


@pytest.mark.parametrize("wanted", [{"only": ["baseline", "gleu"]}, {"until": "gleu"}])
def test_selecting_an_unknown_rung_names_the_nearest(rungs: dict[str, Rung], wanted: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"unknown rung 'gleu'. Did you mean 'gelu'\? Known: baseline_original, .*"):
        select(list(rungs.values()), **wanted)


def test_asking_only_for_a_rung_beyond_the_last_one_wanted_is_refused() -> None:
    with pytest.raises(UserError, match=r"rung 'gelu' \(--only\) comes after 'baseline' \(--until\)"):
        select(PAPER.climb("resnet50"), only=["gelu"], until="baseline")
