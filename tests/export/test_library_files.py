"""What `export --format` writes for a library, loaded by that library's own network as its users load it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import Bottleneck

from roadmap import build_model
from roadmap.cli.arguments import FORMAT
from roadmap.cli.run_commands import LOADING
from roadmap.common.libraries import LIBRARIES, Library
from roadmap.export.library_files import refusal, write_for_library
from roadmap.export.safetensors_files import Form
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import under_our_names
from roadmap.networks.families import BASES
from roadmap.networks.nets import TimmNet
from roadmap.networks.weight_files import read_weights
from tests.networks.test_convert import random_weights
from tests.networks.test_naming import CONVNEXT, ISOTROPIC, LAST_RUNG, NARROW_RESNET, RESNET, OfTheAuthors

LABELS = ["boot", "coat", "hat", "scarf", "shoe"]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def about(channels: int = 3) -> dict[str, Any]:
    """Return what an exported run says of itself, as far as it matters here."""
    images = {"input_size": [channels, 64, 64], "crop_pct": 0.875, "interpolation": "bicubic"}
    return {
        "architecture": "roadmap_resnet50",
        "num_classes": len(LABELS),
        "label_names": LABELS,
        "model_args": {},
        "pretrained_cfg": images,
        "roadmap": {"export_version": 1, "top1": 82.0},
    }


def in_timm(folder: Path) -> nn.Module:
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model


def in_transformers(folder: Path) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    model: nn.Module = transformers.AutoModelForImageClassification.from_pretrained(folder)
    return model


def in_torchvision(folder: Path) -> nn.Module:
    said = json.loads((folder / "config.json").read_text())
    arguments = said["arguments"]
    if "block_setting" in arguments:
        arguments["block_setting"] = [CNBlockConfig(*stage) for stage in arguments["block_setting"]]
        model: nn.Module = torchvision.models.ConvNeXt(**arguments)
    else:
        model = torchvision.models.ResNet(**arguments | {"block": Bottleneck})
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    return model


def in_the_authors_code(folder: Path) -> nn.Module:
    arguments = json.loads((folder / "config.json").read_text())["arguments"]
    names = {"layer_scale_init_value": "ls_init_value"}
    options = {names.get(name, name): value for name, value in arguments.items()}
    model = OfTheAuthors(timm.models.ConvNeXt(**options))
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True)["model"])
    return model


LOADERS: Mapping[Library, Callable[[Path], nn.Module]] = {
    "timm": in_timm,
    "torchvision": in_torchvision,
    "official": in_the_authors_code,
    "transformers": in_transformers,
}
CASES = [
    *[(library, LAST_RUNG) for library in LIBRARIES],
    *[(library, CONVNEXT) for library in LIBRARIES],
    *[(library, RESNET) for library in LIBRARIES if library != "official"],
    ("transformers", NARROW_RESNET),
    ("timm", replace(RESNET, block=replace(RESNET.block, groups=32, hidden_ratio=2))),  # ResNeXt
    ("torchvision", replace(RESNET, block=replace(RESNET.block, groups=32, hidden_ratio=2))),
]
KINDS = {LAST_RUNG: "last rung", CONVNEXT: "ConvNeXt", RESNET: "ResNet", NARROW_RESNET: "narrow ResNet"}


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        found = model.eval()(IMAGES)
    return found if isinstance(found, Tensor) else found.logits


@pytest.mark.parametrize(("library", "net"), CASES, ids=[f"{a} {KINDS.get(b, 'ResNeXt')}" for a, b in CASES])
def test_a_library_loads_what_was_written_for_it_to_the_same_logits(
    library: Library, net: NetConfig, tmp_path: Path
) -> None:
    ours = build_model(net, num_classes=len(LABELS))
    weights = random_weights(ours.state_dict())
    ours.load_state_dict(weights)
    assert refusal(library, net, 3) is None
    write_for_library(library, tmp_path, weights, net, about())
    expected = logits(ours)
    assert expected.std() > 0.05
    torch.testing.assert_close(logits(LOADERS[library](tmp_path)), expected, atol=1e-5, rtol=0)
    written = next(path for path in tmp_path.iterdir() if path.name != "config.json")
    back = under_our_names(read_weights(written), net)  # as --weights reads it
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize("library", ["timm", "official", "transformers"])
def test_grey_images_need_no_three_channels_there(library: Library, tmp_path: Path) -> None:
    ours = build_model(LAST_RUNG, num_classes=len(LABELS), in_channels=1).eval()
    write_for_library(library, tmp_path, ours.state_dict(), LAST_RUNG, about(channels=1))
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        found = LOADERS[library](tmp_path).eval()(images)
        expected = ours(images)
    torch.testing.assert_close(getattr(found, "logits", found), expected, atol=1e-5, rtol=0)


def test_each_file_says_where_its_weights_come_from(tmp_path: Path) -> None:
    weights = build_model(LAST_RUNG, num_classes=len(LABELS)).state_dict()
    for library in LIBRARIES:
        write_for_library(library, tmp_path / library, weights, LAST_RUNG, about())
        said = json.loads((tmp_path / library / "config.json").read_text())
        assert said["roadmap"]["top1"] == 82.0
        assert said["label_names"] == LABELS
    assert in_transformers(tmp_path / "transformers").config.id2label[1] == "coat"
    assert in_timm(tmp_path / "timm").pretrained_cfg["label_names"] == LABELS


def test_what_a_library_cannot_have_is_said_in_a_few_words() -> None:
    between = replace(BASES["resnet50"], stem="patchify")
    assert [refusal(library, between, 3) for library in LIBRARIES] == [
        f"{name} has no such network" for name in LIBRARIES
    ]
    assert refusal("timm", TimmNet("swin_tiny_patch4_window7_224"), 3) == "timm has no such network"
    assert refusal("official", RESNET, 3) == "official has no such network"
    assert refusal("official", ISOTROPIC, 3) is None
    assert refusal("torchvision", LAST_RUNG, 1) == "torchvision's networks take images of 3 channels"


def test_every_format_can_be_asked_for_and_says_how_it_is_loaded() -> None:
    known = {name for part in get_args(Form) for name in (get_args(part) or (part,))}
    assert set(FORMAT.choices) == set(LOADING) == known
