import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from roadmap import build_model, read_ladder
from roadmap.common.errors import UserError
from roadmap.export import onnx_files
from roadmap.export.onnx_files import write_onnx
from roadmap.networks.config import scale_down
from roadmap.networks.model import Network
from tests.export.test_library_files import about
from tests.networks.test_convert import random_weights

RUNGS = {rung.id: rung.net for rung in read_ladder().climb("resnet50")}


def network(rung: str) -> Network:
    net = scale_down(RUNGS[rung], width_divisor=16, stem_stride=4)
    net = replace(net, depths=(1, 1), widths=net.widths[:2])  # exporting takes its time for every block
    model = build_model(net, num_classes=5)
    model.load_state_dict(random_weights(model.state_dict()))
    return model


@pytest.mark.parametrize("rung", ["baseline", "separate_downsampling"])
def test_onnxruntime_gives_the_same_logits_for_any_number_of_images(rung: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = network(rung)
    write_onnx(tmp_path, model, about())
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 64, 64)
        with torch.inference_mode():
            expected = model(images)
        assert expected.std() > 0.05
        found = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["onnx"]["difference"] < 1e-4
    assert json.loads(session.get_modelmeta().custom_metadata_map["config.json"]) == said


class Biased(nn.Module):
    """A network that computes something else while it is exported."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) + (0.001 if torch.compiler.is_exporting() else 0.0)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime's logits differ by 1\.0e-03, more than 0\.0001"):
        write_onnx(tmp_path / "out", Biased(), about())
    assert not (tmp_path / "out").exists()


class OnlyHere(nn.Module):
    """A network that looks at the numbers, which an exporter cannot."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) if images.sum().item() > 0 else images.amax((2, 3))


def test_a_network_that_has_no_onnx_is_refused_in_words(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=r"model\.onnx: this network cannot be exported to ONNX \(") as refusal:
        write_onnx(tmp_path, OnlyHere(), about())
    assert "\n" not in str(refusal.value)


def test_packages_that_are_missing_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "NEEDED", ("torch", "onnx_of_nobody"))
    with pytest.raises(
        UserError, match=r"needs onnx_of_nobody\. Install the extra: pip install 'convnext-roadmap\[onnx"
    ):
        onnx_files.check_installed()
