"""Weights that travel: other code bases' state dicts under our names, and ours under theirs.

Both ends of the roadmap have counterparts elsewhere, tensor for tensor (`roadmap.networks.naming`). What lies between
exists in the authors' code of the ladder alone, whose names are not known: `roadmap.networks.structure` matches those.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from roadmap.common.errors import UserError
from roadmap.common.libraries import Library
from roadmap.networks.config import NetConfig, change_blocks
from roadmap.networks.model import build_model
from roadmap.networks.naming import NAMINGS, Naming
from roadmap.networks.structure import match_structure

TRACKED = "num_batches_tracked"  # of BatchNorm; files of before 2018 have none, and evaluation needs none


def to_library(weights: Mapping[str, Tensor], net: NetConfig, library: Library) -> dict[str, Tensor]:
    """Return our state dict of a network as a library's model of it loads it. The tensors are shared, not copied.

    Raises:
        UserError: If the library has no such network, or the weights are of another one.
    """
    naming = naming_for(net, library)
    ours = _shapes(net)
    _check_names(weights, ours)
    return {
        theirs: _with_rank(weights[name], naming.rank(name, ours[name].ndim))
        for name, theirs in naming.names(ours, net).items()
    }


def from_library(weights: Mapping[str, Tensor], net: NetConfig, naming: Naming) -> dict[str, Tensor]:
    """Return a library's state dict of a network as ours of it loads it. The tensors are shared, not copied.

    A ConvNeXt without layer scale, as the ladder's last rungs are, also takes the weights of one with it: the scale
    goes into the convolution before it, which then computes the same.

    Raises:
        UserError: If the library has no such network, or the weights are of another one.
    """
    if fields := _differences(net, naming):
        raise UserError(
            f"weights: have {naming.library}'s names of {naming}, but the network is none: it differs in "
            f"{', '.join(fields)}. Give the weights of this rung, or choose another (--only)."
        )
    source = net
    if net.block.layer_scale is None and naming.layer_scale_in(weights):
        source = _with_layer_scale(net)
    ours = _shapes(source)
    names = naming.names(ours, source)
    weights = _with_tracked(weights, names.values())
    _check_names(weights, names.values())
    found = {name: _with_rank(weights[theirs], ours[name].ndim) for name, theirs in names.items()}
    return found if source is net else fold_layer_scale(found)


def to_timm(weights: Mapping[str, Tensor], net: NetConfig) -> dict[str, Tensor]:
    """Return our state dict of a network as timm's model of it loads it; see `to_library`."""
    return to_library(weights, net, "timm")


def from_timm(weights: Mapping[str, Tensor], net: NetConfig) -> dict[str, Tensor]:
    """Return timm's state dict of a network as ours of it loads it; see `from_library`."""
    return from_library(weights, net, naming_for(net, "timm"))


def under_our_names(weights: Mapping[str, Tensor], net: NetConfig, place: str = "weights") -> dict[str, Tensor]:
    """Return anybody's state dict of a network as ours of it loads it: by its names where they are known.

    Where they are not, the tensors are matched by their shapes and places, if that can be done in one way only.

    Args:
        weights: The state dict.
        net: The network that they should be of.
        place: Where they come from, for errors.

    Raises:
        UserError: If the weights are of another network, or can be matched in several ways.
    """
    try:
        if is_ours(weights):
            return _with_tracked(weights, _shapes(net))
        known = next((naming for naming in NAMINGS if naming.is_of(weights)), None)
        if known and not _differences(net, known):
            return from_library(weights, net, known)
        try:
            return _by_structure(weights, net)
        except UserError:
            if known:  # whose error says more: the weights of one end of the ladder, say, for the other
                return from_library(weights, net, known)
            raise
    except UserError as error:
        raise UserError(f"{place}: {str(error).removeprefix('weights: ')}") from error


def is_ours(weights: Collection[str]) -> bool:
    """Say whether a state dict has our names."""
    return any(name.startswith("stages.0.0.residual.") for name in weights)


def naming_for(net: NetConfig, library: Library) -> Naming:
    """Return the names that a library has for a network.

    Raises:
        UserError: If it has no such network, with what differs from those that it has.
    """
    differences = {naming: naming.differences(net) for naming in NAMINGS if naming.library == library}
    for naming, fields in differences.items():
        if not fields:
            return naming
    differs = "; ".join(f"from {naming} it differs in {', '.join(fields)}" for naming, fields in differences.items())
    raise UserError(
        f"network: {library} has no counterpart of it: {differs}. Convert where a ladder starts (any depths "
        "in four stages) or a ConvNeXt (any depths and widths in four stages, with or without layer_scale)."
    )


def fold_layer_scale(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our state dict of a ConvNeXt with each block's scale, (C,), in the rows of the convolution before it."""
    folded = dict(weights)
    for name in [name for name in weights if name.endswith(".layer_scale.gamma")]:
        gamma, before = folded.pop(name), name.removesuffix("layer_scale.gamma") + "pointwise2"
        folded[f"{before}.weight"] = gamma[:, None, None, None] * folded[f"{before}.weight"]
        folded[f"{before}.bias"] = gamma * folded[f"{before}.bias"]
    return folded


def without_layer_scale(net: NetConfig) -> NetConfig:
    """Return the network that `fold_layer_scale` gives weights for."""
    return change_blocks(net, lambda block: replace(block, layer_scale=None))


def with_layer_scale(weights: Mapping[str, Tensor], net: NetConfig) -> tuple[dict[str, Tensor], NetConfig]:
    """Return a network's weights and config with a layer scale of ones, which changes nothing, where it has none.

    Every library's ConvNeXt has one unless it is told otherwise.
    """
    if net.block.layer_scale is not None:
        return dict(weights), net
    net = _with_layer_scale(net)
    ours = _shapes(net)
    ones = {name: torch.ones(ours[name].shape) for name in ours if name.endswith(".layer_scale.gamma")}
    return {**weights, **ones}, net


def _by_structure(weights: Mapping[str, Tensor], net: NetConfig) -> dict[str, Tensor]:
    """Return a state dict of unknown names under ours; a layer scale that the network lacks is folded."""
    nets = [net]
    if all(
        block.layer_scale is None and "pointwise2" not in (*block.norm_after, *block.act_after)
        for block in net.stage_blocks
    ):
        nets.append(_with_layer_scale(net))
    errors = []
    for source in nets:
        ours = _shapes(source)
        try:
            names = match_structure({name: tuple(t.shape) for name, t in weights.items()}, ours, source)
        except UserError as error:
            errors.append(error)
            continue
        weights = _with_tracked(weights, names.values())
        found = {name: _with_rank(weights[theirs], ours[name].ndim) for name, theirs in names.items()}
        return found if source is net else fold_layer_scale(found)
    raise errors[0]


def _with_layer_scale(net: NetConfig) -> NetConfig:
    return change_blocks(net, lambda block: replace(block, layer_scale=1.0))


def _shapes(net: NetConfig) -> dict[str, Tensor]:
    """Return a network's state dict without its numbers; head and stem have 1000 classes and 3 channels."""
    with torch.device("meta"):
        return build_model(net).state_dict()


def _with_rank(tensor: Tensor, rank: int) -> Tensor:
    """Return a tensor with so many dimensions: those of size 1 at its end are dropped or added."""
    while tensor.ndim > rank and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    return tensor[(...,) + (None,) * (rank - tensor.ndim)]


def _with_tracked(weights: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Return a state dict with the counts of batches that old files lack."""
    missing = [name for name in expected if name.endswith(TRACKED) and name not in weights]
    return {**weights, **{name: torch.tensor(0) for name in missing}}


def _differences(net: NetConfig, naming: Naming) -> list[str]:
    """Return the fields in which a network differs from one with these names; its widths may be any."""
    return replace(naming, any_width=True).differences(net)


def _check_names(weights: Mapping[str, Tensor], expected: Collection[str]) -> None:
    missing = [name for name in expected if name not in weights]
    strange = sorted(set(weights) - set(expected))
    if missing or strange:
        raise UserError(
            f"weights: not those of this network: {_some(missing)} missing, {_some(strange)} too many. Give the "
            "network whose depths and layer_scale these weights have, and check the direction (to or from a library)."
        )


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})" if names else "none"
