"""How far a library's logits differ from ours with the same weights: `python -m records.weights.compare`.

Writes differences.csv. Weights are random, with signals of about unit size; the libraries' own networks are those of
the tests, small where a library has them so, and ONNX is of whole rungs.
"""

import csv
import tempfile
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from roadmap import build_model, read_ladder
from roadmap.export.library_files import write_for_library
from roadmap.export.onnx_files import write_onnx
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import under_our_names
from roadmap.networks.families import BASES
from tests.export.test_library_files import CASES, LOADERS, about
from tests.networks.test_convert import random_weights
from tests.networks.test_naming import CLASSES, MADE, NARROW_RESNET

ONNX_NETS = {f"resnet50 {rung.id}": rung.net for rung in read_ladder().climb("resnet50")[1:]}
ONNX_NETS |= {base: BASES[base] for base in ("mobilenet_v2", "vgg16")}
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module) -> Tensor:
    """Return what a network makes of the images."""
    with torch.inference_mode():
        found = model.eval()(IMAGES)
    return found if isinstance(found, Tensor) else found.logits


def ours(net: NetConfig, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """Return our network with these weights, or random ones."""
    model = build_model(net, num_classes=CLASSES)
    model.load_state_dict(random_weights(model.state_dict()) if weights is None else weights)
    return model


def row(way: str, what: str, expected: Tensor, found: Tensor) -> dict[str, str]:
    """Return a row of the table."""
    most, size = (found - expected).abs().max().item(), expected.abs().max().item()
    return {"way": way, "network": what, "largest_logit": f"{size:.2f}", "difference": f"{most:.1e}"}


def library_rows() -> list[dict[str, str]]:
    """Return a row for each network that is loaded from a library, and each that is written for one."""
    found = []
    for name, (make, net, _) in MADE.items():
        theirs = make()
        weights = random_weights(theirs.state_dict())
        theirs.load_state_dict(weights)
        found.append(row("loaded here", name, logits(theirs), logits(ours(net, under_our_names(weights, net)))))
    for library, net in CASES:
        model = ours(net)
        kind = "ConvNeXt" if net.block.norm == "layer_norm" else "ResNet" if net.block.groups == 1 else "ResNeXt"
        kind = f"narrow {kind}" if net is NARROW_RESNET else kind
        scale = "" if kind != "ConvNeXt" else " with layer scale" if net.block.layer_scale else ", the last rung"
        with tempfile.TemporaryDirectory() as folder:
            write_for_library(library, Path(folder), dict(model.state_dict()), net, about())
            there = logits(LOADERS[library](Path(folder)))
        found.append(row(f"export --format {library}", kind + scale, logits(model), there))
    return found


def onnx_rows() -> list[dict[str, str]]:
    """Return a row for each network that is written as ONNX."""
    found = []
    for name, net in ONNX_NETS.items():
        model = ours(net)
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(Path(folder), model, about())
            session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
            there = torch.from_numpy(session.run(["logits"], {"images": IMAGES.numpy()})[0])
        found.append(row("export --format onnx", name, logits(model), there))
        print(found[-1], flush=True)
    return found


def main() -> None:
    """Measure and write the table."""
    table = library_rows() + onnx_rows()
    with Path(__file__).with_name("differences.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
