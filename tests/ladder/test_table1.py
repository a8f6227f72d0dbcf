import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import run_ladder
from analysis.figures import draw_bubbles
from analysis.figures.style import Words
from analysis.report.table1 import (
    MODEL_COLUMNS,
    TRAINING,
    about_models,
    models_cells,
    models_markdown,
    models_table,
    with_speeds,
    write_models,
)
from roadmap import build_model, count_macs, count_params
from roadmap.ladder import table1
from roadmap.ladder.table1 import read_table1
from roadmap.measuring.model_speeds import LARGEST_ON_CPU, measure_speeds, worth_measuring
from roadmap.networks import cost
from roadmap.networks.cost import count_attention_macs
from roadmap.networks.families import convnext
from roadmap.networks.nets import TimmNet
from tests.artists import all_text, artists, assert_texts_are_apart, words
from tests.processes import ROOT

SWIN = TimmNet("swin_tiny_patch4_window7_224")
SMALL = replace(read_table1()[0], label="Small-1", timm="test_resnet", image_size=64, note="")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return models_table(read_table1())


def test_every_model_of_table_1_counts_what_is_printed_or_it_is_said_why_not(table: pd.DataFrame) -> None:
    assert len(table) == 35
    assert list(table.columns) == list(MODEL_COLUMNS)
    assert list(table["as_printed"]) == list(table["note"] == "")


def test_most_models_count_what_is_printed(table: pd.DataFrame) -> None:
    off = set(table.loc[~table["as_printed"], "model"])
    assert off == {
        "RegNetY-16G",
        "EffNet-B7",
        "EffNetV2-L",
        "EffNetV2-XL",
        "R-101x3",
        "R-152x4",
        "ConvNeXt-B",
        "Swin-B",
    }
    assert table["as_printed"].sum() == 26


def test_transformers_meet_the_print_with_attentions_products_alone(table: pd.DataFrame) -> None:
    transformers = table[(table["kind"] == "transformer") & table["as_printed"]]
    without = (transformers["macs"] - transformers["attention_macs"]) / 1e9
    assert len(transformers) > 5
    assert ((transformers["paper_gmacs"] - without) > 0.05).all()
    assert (table.loc[table["kind"] == "convnet", "attention_macs"] == 0).all()


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "deit_tiny_patch16_224", "test_convnext"])
def test_torchs_counter_counts_the_same_with_attention_in_single_products(name: str) -> None:
    from timm.layers import set_fused_attn

    net, size = TimmNet(name), 160 if name.startswith("test") else 224
    counted = count_macs(net, size)  # in one operator, where there is attention
    cost._built.cache_clear()
    cost._trace.cache_clear()
    set_fused_attn(False)
    try:
        assert count_macs(net, size) == counted
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as flops:
            build_model(net).eval()(torch.empty(1, 3, size, size))
    finally:
        set_fused_attn(True)
    assert counted == flops.get_total_flops() // 2


def test_a_network_of_timms_counts_what_ours_does_where_the_two_are_one() -> None:
    ours, theirs = convnext("tiny"), TimmNet("convnext_tiny")
    assert count_macs(theirs) == count_macs(ours)
    assert count_params(theirs) == count_params(ours)
    assert count_attention_macs(theirs) == count_attention_macs(ours) == 0


def test_a_bubbles_area_is_its_multiply_adds_and_every_model_has_one(table: pd.DataFrame) -> None:
    figure = draw_bubbles(table, Words(title="T", axis="Top-1", note="N"), TRAINING)
    bubbles = artists(figure, "bubble")
    macs = {name: bubble for name, bubble in bubbles.items() if name.startswith("macs-")}
    assert len(macs) == len(table)
    speeds = [name for name in bubbles if name.startswith("paper_v100")]
    assert len(speeds) == table["paper_v100_images_per_s"].notna().sum()
    one, other = (macs[f"macs-imagenet1k-{name}"].get_markersize() for name in ("Swin-T 224", "Swin-B 384"))
    counts = table.set_index(["training", "model", "image_size"])["macs"]
    ratio = counts["imagenet1k", "Swin-B", 384] / counts["imagenet1k", "Swin-T", 224]
    assert (other / one) ** 2 == pytest.approx(ratio)
    for bubble in bubbles.values():
        (x,), (y,) = bubble.get_data()
        (left, right), (bottom, top) = bubble.axes.get_xlim(), bubble.axes.get_ylim()
        assert left < x < right
        assert bottom < y < top
    assert words(figure, "name")["macs-imagenet1k-Swin-B 384"] == "B 384"
    assert "not known: R-101x3 384, R-152x4 480" in all_text(figure)


def test_the_figure_of_two_models_has_no_texts_on_each_other(table: pd.DataFrame) -> None:
    figure = draw_bubbles(table[table["model"].isin(["Swin-T", "DeiT-S"])], Words(title="T", axis="Top-1"), TRAINING)
    assert_texts_are_apart(figure)
    assert "pre-trained" not in all_text(figure)


def test_speed_is_measured_in_rounds_and_stands_in_table_figure_and_files(tmp_path: Path) -> None:
    shown: list[str] = []
    settings = {"rounds": 2, "visit_s": 0, "batch_size": 2, "device": "cpu"}
    speeds = measure_speeds([SMALL, SMALL], show=lambda _, n, what: shown.append(f"{n} {what}"), **settings)
    assert shown == ["2 Small-1 at 64: round 1 of 2", "2 Small-1 at 64: round 2 of 2"]
    (rounds,) = speeds.images_per_s.values()
    assert len(rounds) == 2
    assert min(rounds) > 0
    table = with_speeds(models_table([SMALL, replace(SMALL, image_size=96, v100_images_per_s=None)]), speeds)
    assert table["images_per_s"].notna().tolist() == [True, False]
    files = write_models(table, tmp_path, speeds)
    assert {file.name for file in files} == {
        "models.csv", "models.md", "models.json", "figure1.png", "figure1.svg", "figure1.pdf",
    }  # fmt: skip
    written = pd.read_csv(tmp_path / "models.csv").fillna({"images_per_s": 0})
    assert list(written.columns) == list(MODEL_COLUMNS)
    assert list(written["images_per_s"]) == pytest.approx([table["images_per_s"][0], 0])
    told = json.loads((tmp_path / "models.json").read_text())
    assert told["measured"]["device"] in about_models(speeds)
    assert told["measured"]["images_per_s"] == [["test_resnet", 64, rounds]]
    assert "images/s here" in (tmp_path / "models.md").read_text()


def test_on_a_cpu_large_models_are_measured_only_if_they_are_asked_for() -> None:
    models = read_table1()
    assert {m.label for m in models} > {m.label for m in worth_measuring(models, asked_for=False, device="cpu")}
    assert all(m.gmacs <= LARGEST_ON_CPU for m in worth_measuring(models, asked_for=False, device="cpu"))
    assert worth_measuring(models, asked_for=True, device="cpu") == list(models)
    assert worth_measuring(models, asked_for=False, device="cuda") == list(models)


def test_the_table_says_which_note_is_whose(table: pd.DataFrame) -> None:
    cells, notes = models_cells(table)
    assert cells[0][""] == "[1]"
    assert notes[0].startswith("prints the 16 of its name")
    assert len(set(notes)) == len(notes)
    assert "images/s here" not in cells[0]
    assert "\n- [1] prints the 16 of its name" in models_markdown(table, about_models())


def test_what_the_documentation_says_of_table_1_is_in_the_record() -> None:
    root = ROOT
    recorded = pd.read_csv(root / "records" / "table1" / "models.csv").query("training == 'imagenet1k'")
    speeds = recorded.query("image_size == 224").set_index("model")["images_per_s"]
    said = f"ConvNeXt-T does {speeds['ConvNeXt-T']:.1f} images/s, Swin-T {speeds['Swin-T']:.1f}"
    results = " ".join((root / "docs" / "results.md").read_text().split())
    assert said in results
    macs = recorded.set_index(["model", "image_size"])["macs"]
    assert f"prints 45.0, counts {macs['ConvNeXt-B', 384] / 1e9:.2f})" in results


def test_a_difference_that_nobody_has_explained_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "--only", "Small-1", "--json", "--out", str(tmp_path)]
    for model, code in ((SMALL, 1), (replace(SMALL, note="a smaller one"), 0)):
        monkeypatch.setattr(table1, "read_table1", lambda model=model: (model,))
        assert run_ladder.main(command) == code
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert row["as_printed"] is False
        assert row["images_per_s"] is None
    assert "nobody has said why" not in (tmp_path / "models.md").read_text()


def test_a_model_that_is_not_in_table_1_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_ladder.main(["models", "--only", "Swin-X"]) == 2
    assert "unknown model 'Swin-X'. Did you mean 'Swin-T'?" in capsys.readouterr().err
