"""Trained runs as other code bases' own networks: weights under their names, and what it takes to build the network.

Only the two ends of a ladder are networks that others have (`roadmap.networks.naming`). A ConvNeXt without layer scale
gets one of ones, which changes nothing, so that every library's network loads the file as it is.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import naming_for, to_library, with_layer_scale
from roadmap.networks.libraries import Library
from roadmap.networks.nets import Net
from roadmap.runs import run_folder

CONFIG, PTH = "config.json", "model.pth"


def refusal(library: Library, net: Net, in_channels: int) -> str | None:
    """Return why a library has no counterpart of a run's network, in a few words; None if it has."""
    if not isinstance(net, NetConfig):
        return f"{library} has no such network"
    try:
        naming_for(net, library)
    except UserError:
        return f"{library} has no such network"
    return "torchvision's networks take images of 3 channels" if library == "torchvision" and in_channels != 3 else None


def write_for_library(
    library: Library, folder: Path, weights: dict[str, Tensor], net: NetConfig, config: dict[str, Any]
) -> None:
    """Write a run's weights as a library's network of them.

    Args:
        library: Whose.
        folder: Where `config.json` and the weights go: `model.safetensors` for timm and transformers, else `model.pth`.
        weights: The network's state dict, as ours has it.
        net: The network.
        config: What `roadmap.export.safetensors_files.describe_run` says of the run.

    Raises:
        UserError: If the library has no such network, or a file cannot be written.
    """
    if net.block.norm == "layer_norm":
        weights, net = with_layer_scale(weights, net)
    theirs = {name: tensor.contiguous() for name, tensor in to_library(weights, net, library).items()}
    about = DESCRIBED[library](net, config)
    if library in ("timm", "transformers"):
        metadata = {"format": "pt"} | ({CONFIG: json.dumps(about)} if library == "timm" else {})  # for `load_model`
        content, name = save(theirs, metadata=metadata), run_folder.WEIGHTS
    else:
        buffer = io.BytesIO()
        torch.save({"model": theirs} if library == "official" else theirs, buffer)
        content, name = buffer.getvalue(), PTH
    files.write_atomically(folder / name, lambda file: file.write(content))
    files.write_json(folder / CONFIG, about)


def _for_timm(net: NetConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json as timm reads it ("local-dir:")."""
    arguments: dict[str, Any]
    if is_convnext(net):
        name, layers = "convnext_tiny", ("stem.0", "head.fc")
        arguments = {"depths": net.depths, "dims": net.widths}
    else:
        name, layers = "resnet50", ("conv1", "fc")
        arguments = {"layers": net.depths}
        if net.block.groups > 1:
            arguments |= {"cardinality": net.block.groups, "base_width": _width_of_a_group(net)}
    images = config["pretrained_cfg"] | {"first_conv": layers[0], "classifier": layers[1]}
    return config | {"architecture": name, "model_args": arguments, "pretrained_cfg": images}


def _for_transformers(net: NetConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json as transformers reads it (`from_pretrained`)."""
    labels = list(map(str, config["label_names"]))
    content = {
        "num_channels": config["pretrained_cfg"]["input_size"][0],
        "depths": net.depths,
        "hidden_sizes": [width * net.block.residual_ratio for width in net.widths],
        "hidden_act": net.block.act,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "dtype": "float32",
        **_origin(config),
    }
    if is_convnext(net):
        name, kind = "ConvNext", "convnext"
        content |= {"patch_size": net.stem_stride, "num_stages": len(net.depths), "layer_norm_eps": 1e-6}
        content |= {"layer_scale_init_value": net.block.layer_scale, "drop_path_rate": 0.0}
        content |= {"image_size": config["pretrained_cfg"]["input_size"][1]}
    else:
        name, kind = "ResNet", "resnet"
        content |= {"embedding_size": net.widths[0], "layer_type": "bottleneck"}
        content |= {"downsample_in_first_stage": False, "downsample_in_bottleneck": False}
    return {"architectures": [f"{name}ForImageClassification"], "model_type": kind} | content


def _for_torchvision(net: NetConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Return what torchvision's class takes."""
    arguments: dict[str, Any] = {"num_classes": config["num_classes"]}
    if is_convnext(net):
        stages = zip(net.widths, (*net.widths[1:], None), net.depths, strict=True)
        return {
            "class": "torchvision.models.ConvNeXt",
            "arguments": {"block_setting": list(stages)} | arguments,  # of torchvision's CNBlockConfig
            **_origin(config),
        }
    arguments |= {"groups": net.block.groups, "width_per_group": _width_of_a_group(net)}
    return {
        "class": "torchvision.models.ResNet",
        "arguments": {"block": "Bottleneck", "layers": net.depths} | arguments,
        **_origin(config),
    }


def _for_the_authors(net: NetConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Return what the ConvNeXt classes of the authors' released code take."""
    arguments: dict[str, Any] = {
        "in_chans": config["pretrained_cfg"]["input_size"][0],
        "num_classes": config["num_classes"],
        "layer_scale_init_value": net.block.layer_scale,
    }
    if len(net.depths) == 1:
        arguments |= {"depth": net.depths[0], "dim": net.widths[0]}
        return {"class": "ConvNeXtIsotropic", "arguments": arguments, **_origin(config)}
    arguments |= {"depths": net.depths, "dims": net.widths}
    return {"class": "ConvNeXt", "arguments": arguments, **_origin(config)}


DESCRIBED = {
    "timm": _for_timm,
    "transformers": _for_transformers,
    "torchvision": _for_torchvision,
    "official": _for_the_authors,
}


def is_convnext(net: NetConfig) -> bool:
    """Say which of the two ends of the roadmap a network is."""
    return net.block.norm == "layer_norm"


def _width_of_a_group(net: NetConfig) -> int:
    """Return the channels of a group of the first stage's spatial convolutions."""
    return net.widths[0] * net.block.hidden_ratio // net.block.groups


def _origin(config: dict[str, Any]) -> dict[str, Any]:
    """Return what config.json says beside the network: where the weights come from and how images are prepared."""
    return {
        "roadmap": config["roadmap"],
        "images": config["pretrained_cfg"],
        "label_names": config["label_names"],
    }
