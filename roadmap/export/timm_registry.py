"""The ladder's networks in timm, which knows them as soon as this module is imported.

Each base is one model, each rung a tag of it: `timm.create_model("roadmap_resnet50.inverted_bottleneck")`; without a
tag it is the rung that the ladder ends with. They take what timm's models take: `num_classes`, `in_chans`,
`global_pool`, `drop_rate`, `drop_path_rate`, `features_only`, `checkpoint_path`; images may have any size. `net` gives
a network that is no rung, such as a rung scaled down or one of another design, as a `NetConfig` or as the dict of its
fields. A dict may come from somebody's config.json: where it has layers that a Python file makes, it takes the trust
that `roadmap.load_model` is given. `roadmap_network` is any network that `net` says, also one that a user's function
makes or changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from roadmap.common.errors import UserError, unknown
from roadmap.common.yaml_files import explain
from roadmap.ladder.ladder import Ladder, read_ladder
from roadmap.ladder.rung import Rung
from roadmap.networks.config import BlockConfig, NetConfig
from roadmap.networks.convert import under_our_names
from roadmap.networks.model import Network, build_model
from roadmap.networks.nets import Net
from roadmap.networks.own_layers import check_trust

PREFIX = "roadmap"  # of the names of the paper's ladders
ANY = f"{PREFIX}_network"  # the model that is what `net` says
# Where timm's checkpoints are told to look for what depends on images and classes.
LAYERS = {"first_conv": "stem.conv", "classifier": "head"}
KEYS = {part: [field.name for field in fields(kind)] for part, kind in {"": NetConfig, "block": BlockConfig}.items()}
default_cfgs: dict[str, Any] = generate_default_cfgs({ANY: {}})  # timm looks here, under this name


def register_ladder(ladder: Ladder, prefix: str) -> list[str]:
    """Register a ladder with timm: for each of its bases a model `<prefix>_<base>`, whose tags are the rungs.

    Args:
        ladder: The ladder, as `read_ladder` returns it.
        prefix: What its models' names begin with, so that they differ from those of other ladders.

    Returns:
        The models' names.

    Raises:
        UserError: If the prefix cannot begin a name, or the ladder cannot be climbed.
    """
    if not prefix.isidentifier():
        raise UserError(f"prefix is '{prefix}', but a model's name is letters, digits and underscores.")
    climbs = {f"{prefix}_{base}": {rung.id: rung for rung in ladder.climb(base)} for base in ladder.bases}
    for name, rungs in climbs.items():
        last = [rung.id for rung in rungs.values() if rung.adopted][-1]
        # To timm, a star marks the tag of a name without one.
        tags = {f"{name}.{rung}{'*' if rung == last else ''}": dict(LAYERS) for rung in rungs}
        default_cfgs.update(generate_default_cfgs(tags))
        register_model(_entrypoint(name, rungs, last))
    return list(climbs)


def _entrypoint(name: str, rungs: Mapping[str, Rung], last: str) -> Callable[..., nn.Module]:
    """Return the function that timm calls to create a model of this name."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
        net: Net | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        if net is None:
            rung = _tag(pretrained_cfg) or last
            if rung not in rungs:
                raise unknown("rung", rung, rungs, place=name)
            net = rungs[rung].net
        made = _trusted(net, f"{name}: net", NetConfig)
        model: nn.Module = build_model_with_cfg(
            _build,
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            net=made,
            feature_cfg={"out_indices": tuple(range(len(made.depths))), "flatten_sequential": True},
            pretrained_filter_fn=_under_our_names,
            **options,
        )
        return model

    create.__name__ = create.__qualname__ = name
    globals()[name] = create  # timm lists the name among this module's public ones
    return create


@register_model  # type: ignore[untyped-decorator]
def roadmap_network(
    pretrained: bool = False,
    pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
    net: Net | Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Return the network that `net` says, of whatever kind."""
    if net is None:
        raise UserError(
            f"{ANY}: needs the network, net=...; timm.list_models('{PREFIX}_*') lists those that have names."
        )
    if options.pop("features_only", False):
        raise UserError(f"{ANY}: features_only works on networks of ours and on timm's own. Leave it out.")
    made = _trusted(net, f"{ANY}: net", Net)
    model: nn.Module = build_model_with_cfg(
        _build_any, ANY, pretrained, pretrained_cfg=pretrained_cfg, net=made, **options
    )
    return model


def _trusted(net: Net | Mapping[str, Any], place: str, kind: Any) -> Any:
    """Return a network, read if it is a dict, which may come from somebody's file: then its code has to be trusted."""
    if not isinstance(net, Mapping):
        return net
    read = _read_net(net, place, kind)
    check_trust(read)
    return read


def _tag(pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None) -> str | None:
    """Return the tag in what timm makes of a model's name (or a caller of it)."""
    if isinstance(pretrained_cfg, dict):
        return pretrained_cfg.get("tag")
    tag: str | None = pretrained_cfg.tag if isinstance(pretrained_cfg, PretrainedCfg) else pretrained_cfg
    return tag


def _read_net(net: Mapping[str, Any], place: str, kind: Any) -> Any:
    """Return a network from what `dataclasses.asdict` makes of one.

    Raises:
        UserError: If it is none.
    """
    try:
        return TypeAdapter(kind).validate_python(net)
    except ValidationError as error:
        raise UserError(explain(error, place, KEYS)) from error


def _build_any(
    net: Net, num_classes: int = 1000, in_chans: int = 3, drop_path_rate: float = 0.0, **others: Any
) -> nn.Module:
    if others:
        raise UserError(
            f"{', '.join(others)}: not for {ANY}, which takes num_classes, in_chans, drop_path_rate and net. Leave it "
            "out."
        )
    return build_model(net, num_classes=num_classes, in_channels=in_chans, drop_path=drop_path_rate)


def _build(
    net: NetConfig,
    num_classes: int,
    in_chans: int,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    **others: Any,
) -> Network:
    if others:
        raise UserError(
            f"{', '.join(others)}: not for these networks, which take num_classes, in_chans, global_pool, drop_rate, "
            "drop_path_rate and net. Leave it out; images may have any size."
        )
    model = build_model(net, num_classes=num_classes, in_channels=in_chans, drop_path=drop_path_rate)
    model.drop_rate = drop_rate
    if global_pool != model.global_pool:
        model.reset_classifier(num_classes, global_pool)
    return model


def _under_our_names(weights: Mapping[str, Tensor], model: Network) -> Mapping[str, Tensor]:
    """Return pretrained weights as our networks have them; others' ResNets and ConvNeXts become rungs so.

    What does not fit the head of a user's own is left out: timm asks for it where the number of classes is the same.
    """
    own = model.state_dict()
    found = under_our_names(weights, model.net)
    if model.net.head == "linear":
        return found
    return {
        name: tensor
        for name, tensor in found.items()
        if not (name.startswith("head.") and (name not in own or own[name].shape != tensor.shape))
    }


register_ladder(read_ladder(), PREFIX)
