import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.report.write import write_report
from analysis.step_comparison import compare_step
from analysis.study_results import StudyResults
from roadmap.common.errors import UserError
from roadmap.common.fields import diff
from roadmap.ladder.designs import DESIGNS, MOST_SAMPLES, Design, Layout, _draw, lay_out
from roadmap.ladder.ladder import Ladder, read_ladder
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.rung import Rung
from roadmap.ladder.schema import Published
from roadmap.ladder.steps import NET_STEPS
from roadmap.networks.config import NetConfig
from roadmap.networks.cost import count_params
from roadmap.networks.families import BASES
from roadmap.recipe import read_recipe
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.samples import LADDER, LADDERS, PAPER

pytestmark = pytest.mark.usefixtures("only_svg")

# What the paper's ladder adopts, by rung; tests over these see a new step without being told.
ADOPTED = [entry for entry in PAPER.rungs if entry.adopted and entry.step]
NET = [entry.id for entry in ADOPTED if entry.step in NET_STEPS]
RECIPE = [entry.id for entry in ADOPTED if entry.step in RECIPE_STEPS]
OTHERS = [
    Design("leave-one-out"),
    Design("add-one"),
    Design("orders", samples=3),
    Design("pairs", ("gelu", "layer_norm")),
    Design("fractional", ("gelu", "layer_norm", "fewer_norms", "kernel_7")),
]


def by_id(layout: Layout) -> dict[str, Rung]:
    return {rung.id: rung for rung in layout.rungs}


def content(rung: Rung) -> Any:
    return rung.net, rung.recipe_steps


def apply(base: str, names: list[str]) -> NetConfig:
    """Apply rungs' steps one after the other, without those that are out of order."""
    net = BASES[base]
    for name in names:
        entry = next(entry for entry in PAPER.rungs if entry.id == name)
        try:
            net = NET_STEPS[entry.step or ""](net, **entry.args.get(base, entry.args))
        except UserError:
            continue
    return net


def check(layout: Layout) -> None:
    """Check what holds for the rungs of every design."""
    ids = [rung.id for rung in layout.rungs]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in ids)
    for index, rung in enumerate(layout.rungs):
        assert rung.adopted
        assert rung.label
        assert (rung.parent is None) == (index == 0)
        assert rung.parent is None or rung.parent in ids[:index]
        assert rung.parent is None or content(rung) != content(layout.rungs[ids.index(rung.parent)])
    for order in layout.orders:
        assert len(order.rungs) == len(order.steps) + 1
        assert set(order.rungs) <= set(ids)
    assert set(layout.square) <= set(ids)


# -- all designs


@pytest.mark.parametrize("base", PAPER.bases)
def test_the_design_ladder_is_the_ladder(base: str) -> None:
    assert lay_out(PAPER, base, Design()) == Layout(Design(), tuple(PAPER.climb(base)))


def test_every_design_is_tried_here() -> None:
    assert {"ladder", *(design.name for design in OTHERS)} == set(DESIGNS)


@pytest.mark.parametrize("base", PAPER.bases)
@pytest.mark.parametrize("design", OTHERS[:-1], ids=lambda design: design.name)  # a plan's are judged together
def test_rungs_have_names_of_their_own_and_are_judged_against_one_above_them(design: Design, base: str) -> None:
    check(lay_out(PAPER, base, design))


@pytest.mark.parametrize("base", PAPER.bases)
@pytest.mark.parametrize("design", OTHERS, ids=lambda design: design.name)
def test_every_network_of_a_design_can_be_built(design: Design, base: str) -> None:
    assert all(count_params(net) > 0 for net in {rung.net for rung in lay_out(PAPER, base, design).rungs})


@pytest.mark.parametrize("base", PAPER.bases)
@pytest.mark.parametrize("design", OTHERS, ids=lambda design: design.name)
def test_only_a_rung_that_is_published_has_published_numbers(design: Design, base: str) -> None:
    published = {content(rung): rung.paper for rung in PAPER.climb(base)}
    rungs = lay_out(PAPER, base, design).rungs
    assert any(rung.paper.top1 for rung in rungs)
    for rung in rungs:
        assert rung.paper == published.get(content(rung), Published())


@pytest.mark.parametrize("design", OTHERS, ids=lambda design: design.name)
def test_all_rungs_train_under_the_full_recipe_but_those_that_are_without_it(design: Design) -> None:
    target = read_recipe("fashion")
    plain = {rung.id for rung in lay_out(PAPER, "resnet50", design).rungs if rung.recipe(target) != target}
    expected = {"leave-one-out": {f"without_{name}" for name in RECIPE}, "add-one": {"baseline_original"}}
    assert plain == expected.get(design.name, set())


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Ladder, str]:
    """Draw some of a ladder's rungs in some order, one after the other, adopted or not, and a base of it."""
    whole = draw(st.sampled_from(list(LADDERS.values())))
    entries = draw(st.permutations(whole.rungs[1:]))[: draw(st.integers(1, 8))]
    changes = {"parent": None, "published": {}}
    rungs = [entry.model_copy(update=changes | {"adopted": draw(st.booleans())}) for entry in entries]
    return whole.model_copy(update={"rungs": (whole.rungs[0], *rungs)}), draw(st.sampled_from(sorted(whole.bases)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(drawn=ladders())
def test_any_ladder_that_can_be_climbed_can_be_taken_apart(drawn: tuple[Ladder, str]) -> None:
    ladder, base = drawn
    try:
        climbed = ladder.climb(base)
    except UserError:
        return  # a step is out of order, or changes nothing
    adopted = [rung for rung in climbed if rung.adopted]
    own_steps = [rung.id for rung in adopted if rung.step not in (None, "enhanced_recipe")]
    for design in OTHERS[:3]:
        if not own_steps:
            with pytest.raises(UserError, match="this ladder adopts no step but the whole recipe"):
                lay_out(ladder, base, design)
            continue
        layout = lay_out(ladder, base, design)
        check(layout)
        rungs = by_id(layout)
        if "all_steps" in rungs:
            assert content(rungs["all_steps"]) == content(adopted[-1])
        if design.name == "leave-one-out":
            assert len(layout.rungs) + len(layout.notes) == len(adopted)
        for order in layout.orders:
            assert sorted(order.steps) == sorted(own_steps)


def test_two_rungs_never_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LADDER.replace("id: start", "id: only_widen"))
    with pytest.raises(UserError, match=r"two rungs would be called 'only_widen'\. Rename that of the ladder"):
        lay_out(read_ladder(tmp_path / "mine.yaml"), "resnet50", Design("add-one"))


# -- leave-one-out


@pytest.mark.parametrize("base", PAPER.bases)
@pytest.mark.parametrize("name", NET)
def test_leaving_a_step_out_leaves_the_others(name: str, base: str) -> None:
    rungs = by_id(lay_out(PAPER, base, Design("leave-one-out")))
    rung = rungs[f"without_{name}"]
    assert rung.net == apply(base, [other for other in NET if other != name])
    assert rung.recipe_steps == rungs["all_steps"].recipe_steps
    assert rung.parent == "all_steps"


@pytest.mark.parametrize("base", PAPER.bases)
def test_every_adopted_step_is_left_out_once(base: str) -> None:
    rungs = lay_out(PAPER, base, Design("leave-one-out")).rungs
    assert [rung.id for rung in rungs] == ["all_steps", *(f"without_{entry.id}" for entry in ADOPTED)]
    assert rungs[0].label == PAPER.bases[base].result


def test_a_step_that_needs_one_that_is_left_out_goes_with_it_and_the_label_says_so() -> None:
    rungs = by_id(lay_out(PAPER, "resnet50", Design("leave-one-out")))
    assert rungs["without_depthwise_conv"].label == "without depthwise conv (nor move up depthwise)"
    assert set(diff(rungs["all_steps"].net, rungs["without_depthwise_conv"].net)) == {
        "block.depthwise",
        "block.spatial_first",
    }
    assert [rung.id for rung in rungs.values() if "nor" in rung.label.split()] == []
    assert [rung.id for rung in rungs.values() if "(nor" in rung.label] == ["without_depthwise_conv"]


def test_leaving_out_the_recipe_step_keeps_the_network_and_trains_it_under_the_plain_recipe() -> None:
    rungs = by_id(lay_out(PAPER, "resnet50", Design("leave-one-out")))
    assert rungs["without_baseline"].net == rungs["all_steps"].net
    assert rungs["without_baseline"].recipe(read_recipe("fashion")).name == "fashion_original"


KERNELS = """\
bases:
  resnet50: {label: ResNet-50, result: End}
rungs:
  - {id: start, label: start}
  - {id: five, label: five, step: kernel_size, args: {size: 5}}
  - {id: seven, label: seven, step: kernel_size, args: {size: 7}}
  - {id: three, label: three, step: kernel_size, args: {size: 3}}
  - {id: gelu, label: GELU, step: gelu}
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Ladder:
    (tmp_path / "kernels.yaml").write_text(KERNELS)
    return read_ladder(tmp_path / "kernels.yaml")


def test_a_step_that_changes_nothing_has_no_rung_and_a_note_says_so(kernels: Ladder) -> None:
    layout = lay_out(kernels, "resnet50", Design("leave-one-out"))
    assert list(by_id(layout)) == ["all_steps", "without_three", "without_gelu"]
    assert layout.notes == tuple(
        f"Leaving '{name}' out changes nothing here, so it has no rung." for name in ("five", "seven")
    )
    layout = lay_out(kernels, "resnet50", Design("add-one"))
    assert list(by_id(layout)) == ["start", "only_five", "only_seven", "only_gelu"]
    assert layout.notes == ("Alone, 'three' changes nothing here, so it has no rung.",)


def test_in_an_order_a_step_that_changes_nothing_stays_on_its_rung(kernels: Ladder) -> None:
    layout = lay_out(kernels, "resnet50", Design("orders", samples=20))
    repeats = 0
    for order in layout.orders:
        for index, name in enumerate(order.steps):
            before, after = order.rungs[index : index + 2]
            if name == "five":
                changes = not {"seven", "three"} & set(order.steps[:index])
                assert (before != after) == changes
                repeats += not changes
    assert repeats


# -- add-one


@pytest.mark.parametrize("base", PAPER.bases)
def test_each_step_is_added_alone_to_the_base_under_the_full_recipe(base: str) -> None:
    rungs = lay_out(PAPER, base, Design("add-one")).rungs
    assert [rung.id for rung in rungs] == ["baseline_original", *RECIPE, *(f"only_{name}" for name in NET)]
    climbed = {rung.id: rung for rung in PAPER.climb(base)}
    assert list(rungs[: 1 + len(RECIPE)]) == [climbed[name] for name in ("baseline_original", *RECIPE)]
    needing = {rung.id: rung.parent for rung in rungs[1 + len(RECIPE) :] if rung.parent != RECIPE[-1]}
    assert needing["only_move_up_depthwise"] == "only_depthwise_conv"
    for name in NET:
        rung = next(rung for rung in rungs if rung.id == f"only_{name}")
        parent = next(other for other in rungs if other.id == rung.parent)
        step = climbed[name].step or ""
        entry = next(entry for entry in PAPER.rungs if entry.id == name)
        assert rung.net == NET_STEPS[step](parent.net, **entry.args.get(base, entry.args))
        assert rung.section == climbed[name].section


def test_a_step_with_what_it_needs_says_so() -> None:
    rungs = by_id(lay_out(PAPER, "resnet50", Design("add-one")))
    assert rungs["only_move_up_depthwise"].label == "only move up depthwise (with depthwise conv)"
    assert rungs["only_gelu"].label == "only ReLU → GELU"


def test_a_recipe_step_in_the_middle_of_a_ladder_counts_to_the_base() -> None:
    middle = [PAPER.rungs[index] for index in (0, 2, 1, 3)]
    assert [entry.id for entry in middle] == ["baseline_original", "stage_ratio", "baseline", "patchify_stem"]
    ladder = PAPER.model_copy(update={"rungs": tuple(middle)})
    layout = lay_out(ladder, "resnet50", Design("add-one"))
    assert {rung.id: rung.parent for rung in layout.rungs} == {
        "baseline_original": None,
        "baseline_original_with_baseline": "baseline_original",
        "only_stage_ratio": "baseline_original_with_baseline",
        "only_patchify_stem": "baseline_original_with_baseline",
    }
    assert content(layout.rungs[1]) == content(PAPER.climb("resnet50")[1])


# -- orders


def test_more_orders_begin_with_the_fewer() -> None:
    few, many = (lay_out(PAPER, "resnet50", Design("orders", samples=n)) for n in (4, 8))
    assert many.orders[:4] == few.orders
    assert many.rungs[: len(few.rungs) - 1] == few.rungs[:-1]
    assert many.rungs[-1] == few.rungs[-1]


def test_the_bases_of_a_ladder_have_the_same_orders() -> None:
    fifty, two_hundred = (lay_out(PAPER, base, Design("orders")) for base in ("resnet50", "resnet200"))
    assert fifty.orders == two_hundred.orders


@pytest.mark.parametrize("base", PAPER.bases)
def test_every_order_leads_from_the_base_to_all_steps_by_legal_networks(base: str) -> None:
    layout = lay_out(PAPER, base, Design("orders"))
    rungs = by_id(layout)
    assert len(layout.orders) == 8
    assert len(set(layout.orders)) == 8
    for order in layout.orders:
        assert sorted(order.steps) == sorted(NET)
        assert order.steps.index("depthwise_conv") < order.steps.index("move_up_depthwise")
        assert (order.rungs[0], order.rungs[-1]) == ("baseline", "all_steps")
        for index, name in enumerate(order.rungs):
            joined = order.steps[:index]
            assert rungs[name].net == apply(base, [other for other in NET if other in joined])
    assert rungs["all_steps"].net == PAPER.climb(base)[-1].net
    assert rungs["all_steps"].parent == "baseline"


def test_from_resnet50_networks_are_those_of_the_steps_in_the_order_drawn() -> None:
    layout = lay_out(PAPER, "resnet50", Design("orders"))
    for order in layout.orders:
        for index, name in enumerate(order.rungs):
            assert by_id(layout)[name].net == apply("resnet50", list(order.steps[:index]))


def test_a_stage_ratio_that_joins_late_does_not_undo_the_width() -> None:
    layout = lay_out(PAPER, "resnet200", Design("orders"))
    late = [order for order in layout.orders if order.steps.index("increase_width") < order.steps.index("stage_ratio")]
    assert late
    for order in late:
        assert by_id(layout)[order.rungs[order.steps.index("stage_ratio") + 1]].net.widths[0] == 128


def test_equal_networks_of_several_orders_are_one_rung() -> None:
    rungs = lay_out(PAPER, "resnet50", Design("orders", samples=40)).rungs
    assert len({content(rung) for rung in rungs}) == len(rungs) < 40 * len(NET)
    assert any(rung.label.endswith(f"(after {rung.parent})") for rung in rungs)


def test_all_legal_orders_are_equally_likely() -> None:
    needed = {"a": frozenset(), "b": frozenset("c"), "c": frozenset(), "d": frozenset("ab")}
    stream = Random(1)
    drawn = Counter("".join(_draw(needed, stream)) for _ in range(3000))
    assert sorted(drawn) == ["acbd", "cabd", "cbad"]
    assert all(900 < count < 1100 for count in drawn.values())


# -- pairs


@pytest.mark.parametrize("base", PAPER.bases)
def test_any_two_adopted_steps_make_a_square_unless_one_needs_the_other(base: str) -> None:
    refused = []
    for x, y in combinations([*RECIPE, *NET], 2):
        if x in NET and apply(base, [y]) == BASES[base] != apply(base, [x, y]) != apply(base, [x]):
            with pytest.raises(UserError, match=f"'{y}' needs '{x}'"):
                lay_out(PAPER, base, Design("pairs", (x, y)))
            refused.append((x, y))
            continue
        layout = lay_out(PAPER, base, Design("pairs", (x, y)))
        check(layout)
        neither, one, other, both = (by_id(layout)[name] for name in layout.square)
        assert len(layout.rungs) == len({content(rung) for rung in layout.rungs}) == 4
        assert {one.parent, other.parent, both.parent} == {neither.id}
        turned = lay_out(PAPER, base, Design("pairs", (y, x)))
        assert [content(by_id(turned)[name]) for name in turned.square] == [
            content(rung) for rung in (neither, other, one, both)
        ]
        if x in NET:
            assert diff(neither.net, both.net).keys() == (
                diff(neither.net, one.net).keys() | diff(neither.net, other.net).keys()
            )
    assert ("depthwise_conv", "move_up_depthwise") in refused


def test_what_a_pair_needs_is_under_all_four() -> None:
    layout = lay_out(PAPER, "resnet50", Design("pairs", ("kernel_9", "move_up_depthwise")))
    assert layout.square == (
        "only_depthwise_conv",
        "depthwise_conv_and_kernel_9",
        "only_move_up_depthwise",
        "move_up_depthwise_and_kernel_9",
    )
    assert all(rung.net.block.depthwise for rung in layout.rungs)
    assert layout.rungs[3].label == "move up depthwise and kernel size → 9 (with depthwise conv)"


def test_a_pair_of_recipe_and_network_starts_under_the_plain_recipe() -> None:
    layout = lay_out(PAPER, "resnet50", Design("pairs", ("baseline", "gelu")))
    assert layout.square == ("baseline_original", "baseline", "only_gelu_without_baseline", "only_gelu")
    target = read_recipe("fashion")
    assert [rung.recipe(target) == target for rung in layout.rungs] == [False, True, False, True]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (("gelu", "gleu"), r"unknown step 'gleu'\. Did you mean 'gelu'\?"),
        (("baseline_original", "gelu"), "unknown step 'baseline_original'"),
        (("move_up_depthwise", "depthwise_conv"), "'move_up_depthwise' needs 'depthwise_conv', so there is nothing"),
        (("kernel_7", "kernel_9"), "'kernel_7_and_kernel_9' and 'only_kernel_9' are the same network"),
    ],
)
def test_a_pair_that_makes_no_square_is_refused(steps: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        lay_out(PAPER, "resnet50", Design("pairs", steps))


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ({"name": "add-two"}, r"unknown design 'add-two'\. Did you mean 'add-one'\?"),
        ({"name": "pairs"}, "takes two steps, but was given none"),
        ({"name": "pairs", "steps": ("gelu",)}, "takes two steps, but was given 'gelu'"),
        ({"name": "pairs", "steps": ("gelu", "gelu")}, "takes two steps, but was given 'gelu gelu'"),
        ({"name": "add-one", "steps": ("gelu",)}, "takes no steps, but was given 'gelu'"),
        ({"name": "orders", "samples": 0}, "is 0, but must be from 1 to"),
        ({"name": "orders", "samples": MOST_SAMPLES + 1}, "must be from 1 to 10,000"),
    ],
)
def test_what_is_no_design_is_refused(design: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Design(**design)


# -- as a study


def study_of(design: Design, base: str = "resnet50") -> Study:
    return plan_study(StudySpec(base, "fashion", PAPER, runs=Path("runs"), design=design))


@pytest.mark.parametrize(
    ("design", "runs", "beyond"),
    [
        (Design("ladder"), 102, 0),
        (Design("leave-one-out"), 84, 72),  # all steps and without the last are the ladder's
        (Design("add-one"), 84, 66),  # so are both baselines and the first step
        (Design("orders"), 486, 462),
        (Design("pairs", ("gelu", "layer_norm")), 24, 18),
    ],
)
def test_what_the_ladder_trains_is_shared(design: Design, runs: int, beyond: int) -> None:
    ladder = {run.config.id for run in study_of(Design()).planned()}
    planned = {run.config.id for run in study_of(design).planned()}
    assert (len(planned), len(planned - ladder)) == (runs, beyond)


@pytest.mark.parametrize("design", OTHERS, ids=lambda design: design.name)
def test_a_study_says_what_design_it_is_and_the_ladder_does_not(design: Design) -> None:
    study = study_of(design)
    assert study.design == design.name
    assert study.describe().startswith("PROXY, not ImageNet")
    assert study.describe().endswith(f", {design.describe()}")
    assert not study.is_whole
    assert "design" not in study_of(Design()).describe()


@pytest.mark.parametrize("design", OTHERS, ids=lambda design: design.name)
def test_every_design_can_be_reported_and_its_rungs_compared(
    design: Design, tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    study = plan_study(
        StudySpec("resnet50", str(write_recipes()), PAPER, runs=tmp_path, design=design, data_root=small_images)
    )
    write_report(study, tmp_path / "out")
    text = (tmp_path / "out" / "ladder.md").read_text()
    assert design.describe() in text
    assert "Agreement" not in text
    assert "=\N{NO-BREAK SPACE}ConvNeXt-T" not in (tmp_path / "out" / "roadmap.svg").read_text()
    first, second = (rung.id for rung in study.rungs[:2])
    said = f"is where the design {design.name} starts: there is no rung before it"
    if design.name == "fractional":
        said = "is one of the networks of a plan, which are judged together"
        assert compare_step(StudyResults(study), second, first).fields
    else:
        assert compare_step(StudyResults(study), second).against == first
    with pytest.raises(UserError, match=said):
        compare_step(StudyResults(study), first)


def test_a_report_names_steps_without_a_rung(kernels: Ladder, tmp_path: Path) -> None:
    study = plan_study(StudySpec("resnet50", "fashion", kernels, Design("add-one"), runs=tmp_path))
    write_report(study, tmp_path / "out")
    assert "\n\nAlone, 'three' changes nothing here" in (tmp_path / "out" / "ladder.md").read_text()
