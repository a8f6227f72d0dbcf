"""Trained rungs leave: weights as safetensors, with all that it takes to load them again, here or in timm.

An exported run is a folder as timm and the Hugging Face hub have them:

- model.safetensors: the weights under our names; its metadata holds what config.json holds, so it can go alone;
- config.json: timm's keys (architecture, num_classes, label_names, model_args, pretrained_cfg), and under `roadmap`
  where the weights come from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import timm
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from roadmap.common import files
from roadmap.common.errors import UserError, unknown
from roadmap.common.libraries import Library
from roadmap.data.batches import MemoryData, load_data
from roadmap.export.library_files import refusal, write_for_library
from roadmap.export.onnx_files import check_installed, write_onnx
from roadmap.export.timm_registry import ANY, LAYERS, PREFIX
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import fold_layer_scale, without_layer_scale
from roadmap.networks.cost import build_without_weights
from roadmap.networks.library_models import features_of, first_convolution_of, head_of
from roadmap.networks.model import build_model
from roadmap.networks.nets import Net, TimmNet
from roadmap.networks.own_layers import TRUST
from roadmap.runs import run_folder
from roadmap.runs.config import DataConfig, RunConfig, read_run_file
from roadmap.study.plan import PlannedRun, Study

# What tells timm to load something else than the file that was asked for.
SOURCES = ("state_dict", "url", "file", "source", "hf_hub_id", "hf_hub_filename", "custom_load")
CONFIG = "config.json"  # the file, and the key of the same in the metadata of the weights
NEEDED = {"architecture": str, "num_classes": int, "label_names": list, "model_args": dict, "pretrained_cfg": dict,
          "roadmap": dict}  # fmt: skip
Form = Literal["roadmap", "onnx"] | Library
EXPORT_VERSION = 1  # raised when what stands under `roadmap` changes; other versions are refused


def export_study(
    study: Study, out: Path, data_root: Path | None = None, form: Form = "roadmap", *, fold: bool = False
) -> tuple[list[Path], dict[str, list[str]]]:
    """Write every finished run of a study as a folder `<rung>-s<seed>`.

    Where a run kept the moving average of its weights, that is one more, `<rung>-s<seed>-ema`.

    Args:
        study: The runs. Rungs that share one are named by the first of them.
        out: Where the folders go; those of the same name are replaced.
        data_root: Where the data set lies, as for `describe_data`.
        form: "roadmap" for `load_model`; the library whose network each becomes (`roadmap.networks.naming`); or "onnx".
        fold: Whether a layer scale is multiplied into the convolution before it, which gives the rung's own network.

    Returns:
        The folders written, and the names of the others by the reason why they are not.

    Raises:
        UserError: If a run folder is damaged, or a file cannot be written.
    """
    if form == "onnx":
        check_installed()
    written: list[Path] = []
    missing: dict[str, list[str]] = {}
    images: dict[DataConfig, dict[str, Any]] = {}  # rungs share their data set
    for run in study.planned():
        name = f"{run.rungs[0]}-s{run.config.seed}"
        row = run_folder.read_result(run.folder) or {}
        weights = run.folder / run_folder.WEIGHTS
        if reason := _reason_against(run, row, form):
            missing.setdefault(reason, []).append(name)
            continue
        data = run.config.data
        if data not in images:
            images[data] = describe_images(run.config, data_root)
        config = describe_run(study, run, row, images[data])
        trained = run.config
        if fold and isinstance(trained.net, NetConfig):
            trained = replace(trained, net=without_layer_scale(trained.net))
            config["model_args"] = {"net": asdict(trained.net)}
        written.append(_write(out / name, weights, trained, config, form))
        average = run.folder / run_folder.EMA_WEIGHTS
        if average.is_file():
            config["roadmap"] |= {"weights": "moving average", "top1": row["top1_ema"]}
            written.append(_write(out / f"{name}-ema", average, trained, config, form))
    return written, missing


def _reason_against(run: PlannedRun, row: dict[str, Any], form: Form) -> str | None:
    """Return why a run is not exported, in a few words; None if it is."""
    if row.get("state") != "finished":
        return row.get("state") or "not trained yet"
    if not (run.folder / run_folder.WEIGHTS).is_file():
        return "weights are gone"
    if form == "roadmap" or form == "onnx":
        return None
    return refusal(form, run.config.net, run.config.data.in_channels)


def describe_images(config: RunConfig, data_root: Path | None = None) -> dict[str, Any]:
    """Return how a run's images were normalised, and what else its data set decides, under timm's names.

    Raises:
        UserError: If the data set is not there, or another one.
    """
    if not config.recipe.in_memory:
        return {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    data = load_data(config, data_root, "cpu")
    assert isinstance(data, MemoryData)
    size = "x".join(map(str, data.test_images.shape[2:]))
    whole = "x".join(map(str, 2 * [config.recipe.image_size]))
    notes = {"notes": [f"Images of {size} have zeros around them, to {whole}; they are not resized."]}
    found = {"mean": data.mean.flatten().tolist(), "std": data.std.flatten().tolist(), "crop_pct": 1.0}
    return found | (notes if size != whole else {})


def describe_run(study: Study, run: PlannedRun, row: dict[str, Any], images: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an exported run's config.json.

    Args:
        study: The study that the run is of.
        run: The run.
        row: Its result.
        images: What `describe_images` says of its data set.
    """
    config, recipe, data = run.config, run.config.recipe, run.config.data
    planned: Mapping[str, Any] = read_run_file(run.folder) or {}
    rung = next(rung for rung in study.rungs if rung.id == run.rungs[0])
    net = config.net
    architecture, model_args = _in_timm(net, study.base)
    features, layers = _shape_of(config)
    return {
        "architecture": architecture,
        "num_classes": data.num_classes,
        "num_features": features,
        "global_pool": "avg",
        "label_names": row["classes"],
        "model_args": model_args,
        "pretrained_cfg": {
            "tag": rung.id,
            "input_size": [data.in_channels, recipe.image_size, recipe.image_size],
            "interpolation": recipe.interpolation,
            "crop_pct": recipe.test_crop,
            "crop_mode": "squash" if recipe.test_resize == "squash" else "center",
            **images,
            **layers,
            "description": f"{study.ladder.bases[study.base].label}, rung '{rung.label}'. {study.describe()}",
        },
        "roadmap": {
            "export_version": EXPORT_VERSION,
            "run": config.id,
            "rungs": list(run.rungs),
            "design": study.layout.design.slug,
            "is_proxy": recipe.is_proxy,
            "weights": "last step",
            "top1": row["top1"],
            "test_images": row["test_images"],
            "commit": planned.get("commit"),
            "versions": planned.get("versions"),
            "recipe": asdict(recipe),
            "data": asdict(data),
            "seed": config.seed,
        },
    }


def _in_timm(net: Net, base: str) -> tuple[str, dict[str, Any]]:
    """Return the name under which timm knows a network, and the arguments that it takes there.

    timm's own are called by timm's name, but for arguments that are None, which `timm.create_model` leaves out.
    """
    if isinstance(net, TimmNet) and None not in dict(net.args).values():
        return net.timm, dict(net.args)
    name = f"{PREFIX}_{base}"
    is_ours = isinstance(net, NetConfig) and timm.is_model(name)
    content = {key: value for key, value in asdict(net).items() if key != "proxy"}
    return name if is_ours else ANY, {"net": content}


def _shape_of(config: RunConfig) -> tuple[int | None, dict[str, str]]:
    """Return what a run's head sees, and where its checkpoints have what depends on images and classes."""
    classes = config.data.num_classes
    model = build_without_weights(config.net, num_classes=classes, in_channels=config.data.in_channels)
    features = features_of(model, classes)
    if isinstance(config.net, NetConfig):
        return features, LAYERS
    return features, {"first_conv": first_convolution_of(model), "classifier": head_of(model, classes)[0]}


def load_model(path: str | Path, *, trust_code: bool | str = False, **options: Any) -> nn.Module:
    """Return an exported network with its weights, ready to look at images (eval mode).

    Args:
        path: A folder that `run_ladder.py export` wrote, or the model.safetensors in it.
        trust_code: Whether to run the Python file of layers that are not the project's, which the file names: no, yes,
            or only if it has this fingerprint, which came from where you trust. A module that you have imported
            already is used without asking.
        **options: What `timm.create_model` takes: `features_only=True` makes it a backbone, `num_classes=5` gives it a
            new head.

    Returns:
        The network on the CPU, as timm creates it: `pretrained_cfg` says how it wants its images.

    Raises:
        UserError: If the file is missing, damaged, was not written by `export`, or has no such network; or if it takes
            code that is not trusted.
    """
    path = Path(path)
    file = path / run_folder.WEIGHTS if path.is_dir() else path
    config = read_config(file)
    about = {key: config[key] for key in ("num_classes", "label_names")}
    images = {key: value for key, value in config["pretrained_cfg"].items() if key not in SOURCES}
    pretrained_cfg = images | about | {"file": str(file)}
    arguments = config["model_args"] | options
    trust = TRUST.set(trust_code)
    try:
        model: nn.Module = timm.create_model(
            config["architecture"], pretrained=True, pretrained_cfg=pretrained_cfg, **arguments
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{file}: cannot be loaded as asked ({reason}). Leave out what changes the network, or export it again."
        ) from error
    finally:
        TRUST.reset(trust)
    return model.eval()


def read_config(file: Path) -> dict[str, Any]:
    """Return what an exported model.safetensors says of itself: the content of config.json.

    Raises:
        UserError: If it is missing, damaged, was not written by `export`, or by another version of it.
    """
    try:
        with safe_open(file, framework="pt") as content:
            text = (content.metadata() or {}).get(CONFIG)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file. 'run_ladder.py export' writes them.") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: is no whole safetensors file ({error}). Export it again.") from error
    if text is None:
        raise UserError(f"{file}: are weights without their network. Give a file that 'run_ladder.py export' wrote.")
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(key), kind) for key, kind in NEEDED.items()):
        raise UserError(f"{file}: what it says of itself is damaged. Export it again.")
    if (version := config["roadmap"].get("export_version")) != EXPORT_VERSION:
        raise UserError(
            f"{file}: export_version is {version}, but this program reads {EXPORT_VERSION}. Load it with the version "
            "that wrote it, or export it again."
        )
    if strange := sorted(config["model_args"].keys() & signature(timm.create_model).parameters):
        raise UserError(f"{file}: says '{strange[0]}' of its network, which is none of its settings. Export it again.")
    if not timm.is_model(config["architecture"]):
        raise unknown("architecture", config["architecture"], timm.list_models(f"{PREFIX}_*"), place=str(file))
    return config


def _write(folder: Path, weights: Path, run: RunConfig, config: dict[str, Any], form: Form) -> Path:
    """Write a run's weights with their configuration as a folder, and return it."""
    try:
        tensors = load(weights.read_bytes())
    except SafetensorError as error:
        raise UserError(f"{weights}: is damaged ({error}). Remove the run's folder to train it again.") from error
    if isinstance(run.net, NetConfig) and all(block.layer_scale is None for block in run.net.stage_blocks):
        tensors = fold_layer_scale(tensors)
    if form == "onnx":
        model = build_model(run.net, num_classes=run.data.num_classes, in_channels=run.data.in_channels)
        model.load_state_dict(tensors)
        write_onnx(folder, model, config)
    elif form != "roadmap":
        assert isinstance(run.net, NetConfig)
        write_for_library(form, folder, tensors, run.net, config)
    else:
        content = save(tensors, metadata={"format": "pt", CONFIG: json.dumps(config, indent=1)})
        files.write_atomically(folder / run_folder.WEIGHTS, lambda file: file.write(content))
        files.write_json(folder / CONFIG, config)
    return folder
