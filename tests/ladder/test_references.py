from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch

import run_ladder
from analysis.figures import Words, draw_tradeoff
from analysis.figures.roadmap import Chart, draw_roadmap
from analysis.ladder_table import ladder_table
from analysis.report.record import read_record
from analysis.report.tables import markdown
from analysis.step_comparison import compare_step
from analysis.study_results import StudyResults
from analysis.verdicts import pairs_of, reference_pairs
from roadmap import build_model, count_macs, count_params, load_model, read_ladder
from roadmap.common.errors import UserError
from roadmap.export.safetensors_files import export_study
from roadmap.jobs.launcher import prepare
from roadmap.ladder.designs import Design, lay_out
from roadmap.ladder.references import REFERENCES
from roadmap.ladder.rung import select
from roadmap.networks.blocks import DropPath
from roadmap.networks.config import BlockConfig
from roadmap.networks.convert import to_timm
from roadmap.networks.nets import TimmNet, as_published
from roadmap.recipe import Recipe
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train
from tests.artists import all_text, artists
from tests.conftest import TINY, write_tiny
from tests.processes import ROOT, Left, outcome
from tests.samples import LADDER, PAPER

MakeRun = Callable[..., RunConfig]
SWIN, RESNEXT = REFERENCES["swin_tiny"].net, REFERENCES["resnext50"].net
SCALES = [(1, 4, 384), (8, 2, 32), (8, 4, 64), (12, 4, 224), (64, 4, 224)]
NAMES = ("swin_tiny", "resnext50")
DIR = ROOT / "records"


def scaled(net: Any, width_divisor: int = 8, stem_stride: int = 4, image_size: int = 32) -> Any:
    return net.scaled(width_divisor=width_divisor, stem_stride=stem_stride, image_size=image_size)


# -- networks


def test_resnext_is_timms_to_the_last_parameter_and_computes_the_same() -> None:
    theirs = TimmNet("resnext50_32x4d")
    assert count_params(RESNEXT) == count_params(theirs) == 25_028_904
    assert count_macs(RESNEXT) == count_macs(theirs)
    own = replace(RESNEXT, depths=(1, 1, 1, 1))
    model, twin = build_model(own).eval(), timm.create_model("resnext50_32x4d", layers=(1, 1, 1, 1)).eval()
    twin.load_state_dict(to_timm(model.state_dict(), own))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images), twin(images))


@pytest.mark.parametrize(("name", "gmacs", "params"), [("swin_tiny", 4.49, 28.3), ("swin_base", 15.43, 87.8)])
def test_swin_transformers_at_the_papers_scale_are_timms_as_they_are(name: str, gmacs: float, params: float) -> None:
    net = scaled(REFERENCES[name].net, 1, 4, 224)
    assert not net.args
    assert count_macs(net) / 1e9 == pytest.approx(gmacs, abs=0.005)
    assert count_params(net) / 1e6 == pytest.approx(params, abs=0.05)


@pytest.mark.parametrize("name", ["resnext50", "swin_tiny", "swin_base"])
@pytest.mark.parametrize("scale", SCALES)
def test_every_reference_can_be_built_at_every_scale(name: str, scale: tuple[int, int, int]) -> None:
    assert count_macs(scaled(REFERENCES[name].net, *scale), scale[2]) > 0


def test_a_proxy_of_swin_has_narrow_heads_patches_of_the_stems_stride_and_a_window_that_fits() -> None:
    assert dict(scaled(SWIN).args) == {"embed_dim": 12, "img_size": 32, "window_size": 4}
    assert dict(scaled(SWIN, 8, 2).args) == {"embed_dim": 12, "img_size": 32, "patch_size": 2, "window_size": 4}
    assert dict(scaled(SWIN, 1, 4, 384).args) == {"img_size": 384, "window_size": 12}  # as published at 384
    heads = [block.attn.num_heads for block in build_model(scaled(SWIN)).modules() if hasattr(block, "attn")]
    assert heads == 2 * [3] + 2 * [6] + 6 * [12] + 2 * [24]


def test_a_proxy_of_resnext_has_fewer_groups_that_are_as_wide() -> None:
    small = scaled(RESNEXT)
    assert small.block.groups == 4
    assert small.widths[0] * small.block.hidden_ratio / small.block.groups == 4 == 64 * 2 / RESNEXT.block.groups
    assert scaled(RESNEXT, 12, 4).block.groups == 2  # 32 / 12 is 3, which does not divide stages of 10


def test_images_that_cannot_be_cut_into_patches_are_refused_with_a_size_that_can() -> None:
    with pytest.raises(UserError, match=r"image_size is 100, but timm:swin_tiny.* takes multiples of 32\. Use 96"):
        scaled(SWIN, 1, 4, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 0}, "groups is 0, but must be a whole number"),
        ({"groups": 2, "depthwise": True}, r"groups is 2, but only the dense spatial convolution .* Use groups=1"),
    ],
)
def test_groups_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BlockConfig(**change)
    with pytest.raises(UserError, match="groups is 32, but must divide the hidden width 24 x 2"):
        replace(RESNEXT, widths=(24, 128, 256, 512))


def test_stochastic_depth_of_timms_networks_is_ours_and_grows_with_depth() -> None:
    model = build_model(scaled(SWIN), num_classes=10, in_channels=1, drop_path=0.2).train()
    paths = [module for module in model.modules() if isinstance(module, DropPath)]
    assert len(paths) == 2 * 11  # two a block, none in the first
    assert [path.rate for path in paths] == sorted(path.rate for path in paths)
    assert paths[-1].rate == pytest.approx(0.2)
    assert not [module for module in model.modules() if isinstance(module, timm.layers.DropPath)]
    assert model(torch.zeros(3, 1, 32, 32)).shape == (3, 10)


# -- runs


def test_runs_of_ladders_keep_the_names_that_they_had() -> None:
    folder = DIR / "resnet50-fashion"
    study = plan_study(StudySpec("resnet50", "fashion", PAPER, runs=Path("runs"), seeds=[0]))
    recorded = pd.read_csv(folder / "results.csv").query("seed == 0").set_index("rung")["run"]
    assert {rung: config.id for (rung, _), config in study.configs.items()} == recorded.to_dict()
    assert read_record(folder).about["finished"] == 102


def test_references_have_names_of_their_own_and_come_back_from_json(tiny_run: MakeRun) -> None:
    configs = [tiny_run(net=net) for net in (scaled(SWIN), scaled(SWIN, 32), scaled(RESNEXT))]
    assert len({config.key for config in configs}) == 3
    for config in configs:
        assert RunConfig.from_json(config.to_json()) == config
        assert RunConfig.from_json(config.to_json()).id == config.id


def test_a_reference_trains_and_goes_on_bit_for_bit(tiny_run: MakeRun, small_images: Path, tmp_path: Path) -> None:
    from roadmap.training import loop as train_module
    from roadmap.training.loop import Stopped

    config = tiny_run(net=scaled(SWIN, 32), epochs=1, batch_size=160, drop_path=0.2)

    def ended(folder: Path) -> Left:
        train(config, folder, data_root=small_images)
        return outcome(folder)

    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "LOOK_EVERY_S", 0.0)
        requests = iter(["", "stop"])
        with pytest.raises(Stopped):
            train(config, tmp_path / "stopped", data_root=small_images, asked=lambda: next(requests, "stop"))
    assert ended(tmp_path / "stopped") == ended(tmp_path / "whole")


# -- studies


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> Study:
    """A ladder of three rungs and two references, from a file."""
    folder = tmp_path_factory.mktemp("references")
    recipe = write_tiny(folder / "recipes", seeds=[0, 1], batch_size=320, epochs=1)
    (folder / "mine.yaml").write_text(f"references: [{', '.join(NAMES)}]\n{LADDER}")
    ladder = read_ladder(folder / "mine.yaml")
    return plan_study(StudySpec("resnet50", str(recipe), ladder, runs=folder / "runs", data_root=small_images))


def results_of(study: Study, **top1: float) -> pd.DataFrame:
    """Return finished runs of two seeds, at so much top-1 or about 70."""
    rows = [
        {"rung": rung.id, "seed": seed, "state": "finished", "top1": top1.get(rung.id, 70.0 + i) + 0.1 * seed * (1 + i)}
        | {"images_per_s": 100.0, "macs": 1e6 * (1 + i), "params": 1e3}
        for i, rung in enumerate(study.rungs)
        for seed in study.seeds
    ]
    return pd.DataFrame(rows).assign(top5=90.0, nll=1.0, ece=1.0, train_loss=1.0)


def judged_of(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Return what is said of a study's steps where its runs are these."""
    results = StudyResults(study)
    vars(results)["runs"] = runs
    return results.verdicts


def test_a_ladders_references_come_last_under_its_recipe_with_its_seeds_against_its_last_rung(study: Study) -> None:
    assert [rung.id for rung in study.rungs] == ["start", "widen", "big_kernel", *NAMES]
    for name in NAMES:
        rung = next(rung for rung in study.rungs if rung.id == name)
        assert rung.parent == "big_kernel"
        assert rung.label.endswith("(proxy)")
        assert [study.configs[name, seed].recipe for seed in (0, 1)] == 2 * [study.recipe]
    assert len(study.planned()) == 2 * 5
    assert study.is_whole
    assert all(run.macs > 0 and run.params > 0 and run.activations > 0 for run in study.planned())


def test_a_reference_as_published_is_no_proxy() -> None:
    study = plan_study(StudySpec("resnet50", "imagenet", PAPER, references=NAMES, assume_data=True))
    found = {rung.id: rung for rung in study.rungs}
    assert found["swin_tiny"].label == "Swin-T"
    assert found["swin_tiny"].paper.top1 == 81.3
    assert found["resnext50"].paper.top1 is None
    assert study.configs["swin_tiny", 0].net == as_published(SWIN) == TimmNet("swin_tiny_patch4_window7_224")
    assert found["swin_tiny"].recipe(study.recipe) == study.recipe


@pytest.mark.parametrize(
    ("design", "against"),
    [
        (Design("leave-one-out"), "all_steps"),
        (Design("orders", samples=1), "all_steps"),
        (Design("pairs", ("gelu", "layer_norm")), None),
    ],
)
def test_other_designs_hold_references_against_the_network_with_all_their_steps(
    design: Design, against: str | None
) -> None:
    layout = lay_out(PAPER, "resnet50", design, NAMES)
    assert {rung.parent for rung in layout.rungs[-2:]} == {against or layout.square[-1]}


def test_only_and_until_choose_among_references_too() -> None:
    rungs = list(lay_out(PAPER, "resnet50", Design(), NAMES).rungs)
    assert [rung.id for rung in select(rungs, only=["gelu", "resnext50"])] == ["gelu", "resnext50"]
    early = select(rungs, until="kernel_9")
    assert [(rung.id, rung.parent) for rung in early[-2:]] == [("swin_tiny", "kernel_7"), ("resnext50", "kernel_7")]


def test_the_answers_to_steps_do_not_depend_on_references(study: Study) -> None:
    judged, alone = (
        judged_of(part := replace(study, rungs=rungs), results_of(part))
        for rungs in (study.rungs, tuple(rung for rung in study.rungs if not rung.is_reference))
    )
    own = judged[~judged["step"].isin(NAMES)].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone)
    top1 = judged[judged["metric"] == "top1"]
    assert list(zip(top1["step"], top1["against"], strict=True)) == pairs_of(study.rungs) + reference_pairs(study.rungs)
    assert list(judged["metric"].unique()) == list(alone["metric"].unique())
    assert top1["p_holm"].notna().all()


def test_references_are_grey_bars_and_filled_dots_and_no_side_branches(study: Study) -> None:
    table = ladder_table(results_of(study), study.rungs)
    figure = draw_roadmap(table, Chart(title="T", axis="top-1", result="End"))
    bars = artists(figure, "bar")
    assert list(bars) == [rung.id for rung in study.rungs]
    assert bars["swin_tiny"].get_facecolor() == bars["resnext50"].get_facecolor()
    assert not any(bar.get_hatch() for bar in bars.values())
    text = all_text(figure)
    assert "References" in text
    assert "Swin-T (proxy)" in text
    assert "not adopted" not in text
    assert "bigger kernel =\N{NO-BREAK SPACE}End" in " ".join(t.get_text() for t in artists(figure, "label").values())
    tradeoff = draw_tradeoff(table, Words(title="T", axis="top-1"))
    assert "not adopted" not in all_text(tradeoff)
    (path,) = (line for line in artists(tradeoff, "path").values())
    assert len(path.get_xdata()) == 3


def test_tables_say_which_rows_are_references(study: Study) -> None:
    text = markdown(ladder_table(results_of(study), study.rungs))
    assert "| swin_tiny (reference) | 2 |" in text
    assert "not adopted" not in text


def test_a_reference_can_be_compared_with_a_rung(study: Study) -> None:
    comparison = compare_step(StudyResults(study), "swin_tiny")
    assert comparison.against == "big_kernel"
    assert comparison.family == 2
    assert comparison.fields == {"network": ("bigger kernel", "timm:swin_tiny_patch4_window7_224")}
    fields = compare_step(StudyResults(study), "resnext50", "start").fields
    assert fields["network: block.hidden_ratio"] == (1, 2)


def test_a_trained_reference_leaves_as_timms_network(study: Study, small_images: Path, tmp_path: Path) -> None:
    (run,) = (run for run in study.planned() if run.rungs == ("swin_tiny",) and run.config.seed == 0)
    prepare([run])
    train(run.config, run.folder, data_root=small_images)
    written, _ = export_study(study, tmp_path, small_images)
    assert [folder.name for folder in written] == ["swin_tiny-s0"]
    model = load_model(written[0])
    assert type(model).__name__ == "SwinTransformer"
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    own = build_model(run.config.net, num_classes=10, in_channels=1).eval()
    own.load_state_dict(timm.models.load_state_dict(str(run.folder / run_folder.WEIGHTS)))
    assert torch.equal(model(images), own(images))
    assert load_model(written[0], num_classes=5)(images).shape == (2, 5)


# -- requests that cannot be met


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swin_tine"], r"--references: unknown reference 'swin_tine'\. Did you mean 'swin_tiny'\?"),
        (["swin_tiny", "swin_tiny"], "--references: 'swin_tiny' stands twice"),
    ],
)
def test_references_that_cannot_be_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_ladder.main(["plan", "--base", "resnet50", "--references", *words]) == 2
    error = capsys.readouterr().err
    assert pd.Series([error]).str.contains(message).all(), error


def test_a_file_with_a_reference_that_is_not_there_says_where(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"references: [resnext5]\n{LADDER}")
    with pytest.raises(
        UserError, match=r"mine\.yaml:1: references: unknown reference 'resnext5'\. Did you mean 'resnext50'"
    ):
        read_ladder(tmp_path / "mine.yaml")


def test_a_rung_of_a_references_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LADDER.replace("widen", "swin_tiny"))
    with pytest.raises(UserError, match="'swin_tiny' is a rung of this ladder too"):
        lay_out(read_ladder(tmp_path / "mine.yaml"), "resnet50", Design(), ["swin_tiny"])


def test_a_reference_that_does_not_fit_the_recipe_is_named(tmp_path: Path) -> None:
    recipe = write_tiny(tmp_path / "recipes", image_size=48)
    with pytest.raises(UserError, match="recipe 'tiny', 'swin_tiny': image_size is 48"):
        plan_study(StudySpec("resnet50", recipe, PAPER, references=["swin_tiny"], runs=tmp_path))
    assert Recipe(**TINY).image_size == 32
