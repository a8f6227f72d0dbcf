"""Trained runs as ONNX, which runtimes of many languages and devices read; each file is checked before it is kept."""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roadmap.common import files
from roadmap.common.errors import UserError

NEEDED = ("onnx", "onnxscript", "onnxruntime")  # the extra `onnx`
FILE, CONFIG = "model.onnx", "config.json"
INPUT, OUTPUT = "images", "logits"
MOST_DIFFERENCE = 1e-4  # between logits here and in onnxruntime, in logits, or of the largest where that is above 1


def check_installed() -> None:
    """Refuse to go on without the packages that ONNX takes.

    Raises:
        UserError: If one is missing, with how to install them.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"--format onnx: needs {', '.join(missing)}. Install the extra: pip install 'convnext-roadmap[onnx]'."
        )


def write_onnx(folder: Path, model: nn.Module, config: dict[str, Any]) -> None:
    """Write a network as `model.onnx`, which takes any number of images at once, and its `config.json`.

    Args:
        folder: Where they go.
        model: The network with its weights; it is put into eval mode.
        config: What `roadmap.export.safetensors_files.describe_run` says of the run.

    Raises:
        UserError: If the network cannot be exported, or onnxruntime finds other logits.
    """
    shape = config["pretrained_cfg"]["input_size"]
    model.eval()
    program = _export(model, torch.zeros(2, *shape), folder)
    content = program.model_proto.SerializeToString()
    config = config | {"onnx": {"input": INPUT, "output": OUTPUT, "difference": _difference(model, content, shape)}}
    if not config["onnx"]["difference"] <= MOST_DIFFERENCE:
        raise UserError(
            f"{folder / FILE}: onnxruntime's logits differ by {config['onnx']['difference']:.1e}, more than "
            f"{MOST_DIFFERENCE}. It was not written; export another format."
        )
    program.model.metadata_props[CONFIG] = json.dumps(config)
    content = program.model_proto.SerializeToString()
    files.write_atomically(folder / FILE, lambda file: file.write(content))
    files.write_json(folder / CONFIG, config)


def _export(model: nn.Module, images: torch.Tensor, folder: Path) -> torch.onnx.ONNXProgram:
    try:
        with warnings.catch_warnings(action="ignore"):  # of the exporter's own code
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # own layers may have what no ONNX has
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / FILE}: this network cannot be exported to ONNX ({reason}).") from error
    assert program is not None
    return program


def _difference(model: nn.Module, content: bytes, shape: list[int]) -> float:
    """Return the greatest difference of logits from onnxruntime's, for one image and for three at once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    most = 0.0
    for count in (1, 3):
        images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected = model(images)
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        most = max(most, float((found - expected).abs().max() / expected.abs().max().clamp(min=1)))
    return most
