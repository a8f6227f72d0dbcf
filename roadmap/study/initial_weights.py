"""Weights that training starts from: where they lie, whether they fit, taking them over."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.paths import CACHE
from roadmap.networks.config import NetConfig, change_blocks
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig, WeightsConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMM = "timm:"
LAYER_SCALE = 1e-6  # what the paper's starts at, before the weights take its place


def find_weights(place: str, rung: str, seed: int) -> WeightsConfig:
    """Find the weights that a run starts from.

    Args:
        place: A folder that `export` wrote, with weights for each rung and seed; a file for all of them, from here
            or elsewhere; or timm:NAME, for pretrained weights of timm's, which are kept in the cache.
        rung: The rung's id.
        seed: The run's seed.

    Raises:
        UserError: If there are none.
    """
    if place.startswith(TIMM):
        path = _fetch(place.removeprefix(TIMM))
    else:
        path = Path(place)
        if path.is_dir():
            path = _find_exported(path, rung, seed)
    return WeightsConfig(str(path.absolute()), _fingerprint(path))


def _find_exported(folder: Path, rung: str, seed: int) -> Path:
    """Return the file of a rung and seed; rungs that shared a run when it was exported share it here."""
    named = folder / f"{rung}-s{seed}" / run_folder.WEIGHTS
    for path in (named, named.with_name("model.pth")):  # the second of a format of `export`
        if path.is_file():
            return path
    for path in sorted(folder.glob(f"*-s{seed}/config.json")):
        about = (files.read_object(path) or {}).get("roadmap")
        if isinstance(about, dict) and rung in (about.get("rungs") or ()):
            return path.with_name(run_folder.WEIGHTS)
    raise UserError(
        f"--weights {folder}: nothing for rung '{rung}' and seed {seed}: no {named.parent.name}/{run_folder.WEIGHTS}. "
        "Export it ('run_ladder.py export'), or leave it out (--only, --seeds)."
    )


def _fetch(name: str) -> Path:
    path = CACHE / "timm" / f"{name}.safetensors"
    if not path.is_file():
        import timm
        from safetensors.torch import save

        try:
            weights = timm.create_model(name, pretrained=True).state_dict()
        except Exception as error:  # of timm's, the hub's and the network's many
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"--weights {TIMM}{name}: cannot be had ({reason}). Name a pretrained model of timm's, or a file that "
                "has its state dict."
            ) from error
        content = save({key: value.contiguous() for key, value in weights.items()})
        files.write_atomically(path, lambda file: file.write(content))
    return path


@cache
def _fingerprint(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"--weights {path}: cannot be read ({error.strerror}).") from error


def check_weights(config: RunConfig) -> None:
    """Refuse weights that do not fit a run's network.

    Raises:
        UserError: If they are damaged, or another network's.
    """
    read_first_weights(config)


def read_first_weights(config: RunConfig) -> "dict[str, Tensor]":
    """Return the weights that a run starts from, by their names in its network; a head that does not fit is empty.

    Raises:
        UserError: As for `load_weights`.
    """
    from roadmap.networks.cost import build_without_weights

    outside = {"num_classes": config.data.num_classes, "in_channels": config.data.in_channels}
    return _read_fitting(build_without_weights(config.net, **outside), config)


def keep_layer_scale(config: RunConfig) -> RunConfig:
    """Return a run whose network has a layer scale of its own where its weights have one and the rung has none.

    The authors fine-tune it with the other parameters. Folded into the convolution before it, it would compute the same
    at first and learn otherwise.
    """
    net = config.net
    if not isinstance(net, NetConfig) or any(block.layer_scale is not None for block in net.stage_blocks):
        return config
    net = change_blocks(net, lambda block: replace(block, layer_scale=LAYER_SCALE))
    scaled = replace(config, net=net)
    try:
        check_weights(scaled)
    except UserError:
        return config
    return scaled


def load_weights(model: "nn.Module", config: RunConfig) -> None:
    """Have a run's network start from its weights; a head of another number of classes stays as it is.

    Raises:
        UserError: If they are missing, damaged, not those that the run was planned with, or another network's.
    """
    model.load_state_dict(_read_fitting(model, config))


def _read_fitting(model: "nn.Module", config: RunConfig) -> "dict[str, Tensor]":
    from roadmap.networks.convert import under_our_names
    from roadmap.networks.library_models import head_of
    from roadmap.networks.weight_files import read_weights

    assert config.weights is not None
    path = Path(config.weights.path)
    if _fingerprint(path) != config.weights.fingerprint:
        raise UserError(f"{path}: are other weights than the run was planned with. Plan again with the same --weights.")
    weights = read_weights(path)
    if isinstance(config.net, NetConfig):
        weights = under_our_names(weights, config.net, str(path))
    own, (head_name, _) = model.state_dict(), head_of(model, config.data.num_classes)
    head = [name for name in own if head_name and name.startswith(f"{head_name}.")]
    if any(name in weights and weights[name].shape[:1] != own[name].shape[:1] for name in head):
        weights |= {name: own[name] for name in head}
    wrong = [name for name in sorted(own.keys() | weights) if _shape(own, name) != _shape(weights, name)]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{path}: weights of another network: {len(wrong)} of {len(own)} tensors do not fit: {name} is "
            f"{_shape(weights, name)}, but must be {_shape(own, name)}. Give those of this rung, or choose another "
            "(--only)."
        )
    return weights


def _shape(weights: "dict[str, Tensor]", name: str) -> str:
    return "x".join(map(str, weights[name].shape)) or "a number" if name in weights else "missing"
