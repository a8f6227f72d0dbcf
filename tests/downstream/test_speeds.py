"""Inference of detectors and segmenters is timed in turns, with all that they do at test."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torchvision.models.detection import MaskRCNN

from roadmap.cli.main import main
from roadmap.common.errors import UserError
from roadmap.downstream import speeds
from roadmap.downstream.cascade import cascade_mask_rcnn
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.mask_rcnn import mask_rcnn
from roadmap.downstream.speeds import LARGEST_ON_CPU, measure_speeds, worth_measuring
from roadmap.downstream.tables import read_tables, select_rows
from roadmap.downstream.task_recipe import Framework
from roadmap.downstream.upernet import UPerNet
from roadmap.networks.config import NetConfig
from roadmap.networks.nets import Net

TINY = NetConfig(depths=(1, 1, 1, 1), widths=(4, 4, 8, 8))


def build_tiny(framework: Framework, net: Net, size: tuple[int, int]) -> UPerNet | MaskRCNN:
    """Build what stands for one of the tables' models, as far as its framework goes."""
    torch.manual_seed(0)
    if framework == "upernet":
        return UPerNet(FeatureMaps(TINY), 3, width=8, auxiliary_width=8)
    small = {"width": 8, "box_width": 16, "rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 50}
    detector = mask_rcnn(FeatureMaps(TINY), 3, **small, box_detections_per_img=10)
    return cascade_mask_rcnn(detector, 3, width=8, box_width=16) if framework == "cascade_mask_rcnn" else detector


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models in place of the tables', on small images."""
    monkeypatch.setattr(speeds, "build_as_printed", build_tiny)
    monkeypatch.setattr(speeds, "count_cores", lambda: 1)  # several wait for each other longer than they compute
    rows = tuple(replace(row, size=(64, 96)) for row in read_tables())
    monkeypatch.setattr("roadmap.downstream.tables.read_tables", lambda: rows)
    monkeypatch.setattr(speeds, "measure_speeds", partial(measure_speeds, rounds=2, visit_s=0.0))


@pytest.mark.usefixtures("tiny")
def test_every_model_is_visited_in_turns_and_detectors_find_boxes() -> None:
    rows, shown = select_rows(["ConvNeXt-T"]), list[str]()
    precision = torch.get_float32_matmul_precision()
    found = measure_speeds(rows, rounds=2, visit_s=0.0, device="cpu", show=lambda _, n, what: shown.append(what))
    assert shown[0] == "Mask R-CNN, ConvNeXt-T at 64x96: round 1 of 2"
    assert [what.partition(",")[0] for what in shown] == [
        "Mask R-CNN", "Cascade Mask R-CNN", "UPerNet", "UPerNet", "Cascade Mask R-CNN", "Mask R-CNN",
    ]  # fmt: skip
    assert all(visit.images_per_s > 0 for visits in found.visits.values() for visit in visits)
    assert [visits[0].boxes for visits in found.visits.values()] == [10, 10, None]
    assert found.precision == "float32"
    assert torch.get_float32_matmul_precision() == precision


def test_rows_are_named_by_framework_and_backbone() -> None:
    assert {row.framework for row in select_rows(["ConvNeXt-T"])} == {"mask_rcnn", "cascade_mask_rcnn", "upernet"}
    assert {row.backbone for row in select_rows(["mask_rcnn"])} == {"Swin-T", "ConvNeXt-T"}
    assert [row.gmacs for row in select_rows(["upernet/ConvNeXt-B"])] == [1170, 1828]
    assert select_rows(None) == read_tables()
    with pytest.raises(UserError, match=r"--only: unknown row 'upernet/ConvNeXt-X'. Did you mean 'upernet/ConvNeXt-"):
        select_rows(["upernet/ConvNeXt-X"])


def test_on_a_cpu_large_models_are_timed_only_if_they_are_asked_for() -> None:
    rows = read_tables()
    assert all(row.gmacs <= LARGEST_ON_CPU for row in worth_measuring(rows, asked_for=False, device="cpu"))
    assert worth_measuring(rows, asked_for=True, device="cpu") == list(rows)
    assert worth_measuring(rows, asked_for=False, device="cuda") == list(rows)


@pytest.mark.usefixtures("tiny")
def test_the_command_prints_the_papers_speeds_beside(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["measure", "--downstream", "--only", "cascade_mask_rcnn/ConvNeXt-B", "upernet/ConvNeXt-B"]
    assert main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["table"], row["pretraining"], row["paper_a100_images_per_s"]) for row in rows] == [
        (3, "imagenet1k", 11.4), (3, "imagenet22k", 11.5), (4, "imagenet1k", None), (4, "imagenet22k", None),
    ]  # fmt: skip
    assert rows[0]["images_per_s"] == rows[1]["images_per_s"] > 0  # one model, measured once
    assert all(len(row["rounds"]) == 2 and row["device"] and row["precision"] for row in rows)
    assert main(["measure", "--downstream", "--base", "resnet50"]) == 2
    assert "--only names rows, such as upernet/ConvNeXt-T" in capsys.readouterr().err
