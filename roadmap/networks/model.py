"""From a `NetConfig` to a network and its initialisation; nothing else knows how the parts fit."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Any, overload

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from roadmap.common.errors import UserError
from roadmap.networks.blocks import Block, Downsample, HeadConv, Stem, make_drop_path, make_norm
from roadmap.networks.config import Init, NetConfig
from roadmap.networks.timm_net import TimmNet

LAYER_BLOCKS = 3  # of a stage, that fine-tuning gives one learning rate


class Network(nn.Module):
    """Stem, stages, global average pool, head. Built by `build_model`, with the interface of timm's models.

    Attributes:
        net: What it was built from.
        in_chans: Channels of the images.
        num_classes: Outputs of the head; 0 where there is none.
        num_features: Channels of the last stage.
        head_hidden_size: Those that the head maps to classes: the same, but where a convolution stands before the pool.
        feature_info: Of each stage: its channels, the pixels of the image per pixel of its output in one direction, and
            its module's name.
        global_pool: "avg", or "" for a network without a head that gives its features as they are.
        drop_rate: Probability of dropout before the head, in training; the paper has none.
        grad_checkpointing: Whether the backward pass computes each block anew instead of keeping what is inside it.
    """

    def __init__(self, net: NetConfig, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.net = net
        self.in_chans, self.num_classes = in_channels, num_classes
        self.global_pool, self.drop_rate, self.grad_checkpointing = "avg", 0.0, False
        separate = net.downsample == "separate"
        last_block = max(sum(net.depths) - 1, 1)
        self.stem = Stem(net, in_channels)
        self.stages = nn.Sequential()
        stream, done = self.stem.width, 0  # channels of the stream, blocks built so far
        for index, (depth, width, stride) in enumerate(zip(net.depths, net.widths, net.stage_strides, strict=True)):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            residual_width = width * net.block.residual_ratio
            if separate and (index > 0 or stride > 1):
                stage["downsample"] = Downsample(net, stream, residual_width, stride)
                stream = residual_width
            elif net.downsample == "max_pool" and stride > 1:
                stage["downsample"] = nn.MaxPool2d(stride)
            for number in range(depth):
                own = stride if number == 0 and net.downsample == "in_block" else 1
                rate = drop_path * done / last_block
                stage[str(number)] = Block(net.block, stream, width, own, rate)
                stream, done = residual_width, done + 1
            self.stages.append(nn.Sequential(stage))
        self.head_conv = HeadConv(net, stream) if net.head_width else nn.Identity()
        self.norm = make_norm(net.block, net.head_width or stream) if net.final_norm else nn.Identity()
        self.num_features, self.head_hidden_size = stream, net.head_width or stream
        self.head = self._make_head(num_classes)
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": width * net.block.residual_ratio, "reduction": reduction, "module": f"stages.{i}"}
            for i, (width, reduction) in enumerate(zip(net.widths, net.reductions, strict=True))
        ]

    def _make_head(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_chans, H, W) to logits (N, num_classes).

        Without a head to (N, head_hidden_size), and without a pool to (N, head_hidden_size, H / stride, W / stride).
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N, in_chans, H, W) to the last stage's output (N, num_features, H / stride, W / stride)."""
        x = self.stem(x)
        if self.grad_checkpointing:
            for layer in chain(*self.stages):
                x = checkpoint(layer, x, use_reentrant=False)
            return x
        out: Tensor = self.stages(x)
        return out

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last stage's output and those of chosen stages, each (N, C, H, W), as timm's models do.

        Args:
            x: Images (N, in_chans, H, W).
            indices: Numbers of stages; a number takes so many last ones, None all.
            norm: Not for these networks, whose last norm follows the pool.
            stop_early: Whether stages after the last chosen one are left out.
            output_fmt: "NCHW".
            intermediates_only: Whether only the chosen ones are returned.

        Raises:
            UserError: If a norm or another layout is asked for.
        """
        from timm.models._features import feature_take_indices

        if norm or output_fmt != "NCHW":
            raise UserError(
                f"forward_intermediates: norm={norm}, output_fmt='{output_fmt}', but these networks give NCHW without "
                "a norm. Leave both out."
            )
        chosen, last = feature_take_indices(len(self.stages), indices)
        x, found = self.stem(x), []
        for number, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if number in chosen:
                found.append(x)
        return found if intermediates_only else (x, found)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last stage's output to logits (N, num_classes), or to what the head sees, (N, head_hidden_size)."""
        x = self.head_conv(x)
        if not self.global_pool:
            features: Tensor = self.norm(x)
            return features
        x = self.norm(x.mean((2, 3), keepdim=True)).flatten(1)
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, self.training)
        out: Tensor = x if pre_logits else self.head(x)
        return out

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one, initialised as the first was.

        Args:
            num_classes: Outputs; 0 leaves the features as they are.
            global_pool: "avg", "" for features that are not pooled (with 0 outputs), or None for the same as now.

        Raises:
            UserError: If another pooling is asked for.
        """
        self.set_pool(self.global_pool if global_pool is None else global_pool, num_classes)
        self.num_classes = num_classes
        self.head = self._make_head(num_classes).to(next(self.parameters()))
        _initialise(self.head, self.net)

    def set_pool(self, global_pool: str, num_classes: int) -> None:
        """Average before the head ("avg") or, without one, leave the features as they are ("").

        Raises:
            UserError: If another pooling is asked for, or none with a head.
        """
        if global_pool not in ("avg", "") or (num_classes and not global_pool):
            raise UserError(
                f"global_pool is '{global_pool}', but these networks average ('avg') before their {num_classes} "
                "classes. With num_classes=0, '' leaves the features as they are."
            )
        self.global_pool = global_pool

    def __prepare_scriptable__(self) -> "Network":
        """Refuse `torch.jit.script`, which calls this.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "torch.jit.script does not take these networks. torch.export.export and torch.jit.trace do; "
            "torch.compile makes them fast."
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Save memory in training at the price of a second forward pass, in which BatchNorm averages once more."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, int]]:
        """Return what sorts parameters into layers, for timm's layer-wise learning-rate decay.

        Args:
            coarse: Whether a stage is one layer; else each three blocks of it are. Either way its downsampling layer
                belongs to the first, the stem is before, the head and the last norm are after all stages.

        Returns:
            From a parameter's name to its layer: layers in the order of these pairs.

        Source: Table 6, "layer-wise lr decay"; three blocks a group as in BEiT's and the authors' released code.
        """

        def group(name: str) -> tuple[int, int]:
            part, *place = name.split(".")
            if part != "stages":
                return (-1, 0) if part == "stem" else (len(self.stages), 0)
            block = 0 if coarse or place[1] == "downsample" else int(place[1]) // LAYER_BLOCKS
            return int(place[0]), block

        return group


def _initialise(model: nn.Module, net: NetConfig, init: Init = "trunc_normal") -> None:
    """Draw the first weights of convolutions and linear layers anew; PyTorch's own are there already."""
    for name, module in model.named_modules():
        is_conv = isinstance(module, nn.Conv2d)
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if is_conv and (init == "kaiming" or (init == "trunc_normal" and net.block.norm == "none")):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif init == "trunc_normal" or (init == "pytorch" and name in ("", "head")):
            nn.init.trunc_normal_(module.weight, std=0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@overload
def build_model(
    net: NetConfig,
    *,
    num_classes: int = ...,
    in_channels: int = ...,
    drop_path: float = ...,
    init: Init = ...,
    head_init_scale: float = ...,
) -> Network: ...


@overload
def build_model(
    net: TimmNet,
    *,
    num_classes: int = ...,
    in_channels: int = ...,
    drop_path: float = ...,
    init: Init = ...,
    head_init_scale: float = ...,
) -> nn.Module: ...


def build_model(
    net: NetConfig | TimmNet,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    drop_path: float = 0.0,
    init: Init = "trunc_normal",
    head_init_scale: float = 1.0,
) -> nn.Module:
    """Build a network and initialise it, unless told otherwise as the authors do: truncated normal, std 0.02, biases 0.

    Where no norm sets the scale of what passes through, 13 layers of such weights leave nothing of an image, so there
    convolutions start as He et al. have them. A network of timm's starts as timm has it.

    The random numbers come from torch's default generator. Under `torch.device("meta")` nothing is allocated.

    Args:
        net: The network to build.
        num_classes: Outputs of the head; 0 builds none.
        in_channels: Channels of the images.
        drop_path: Stochastic depth rate of the last block; the rate grows linearly from 0 at the first.
        init: The distribution of the first weights, as `roadmap.recipe.Recipe.init` has it.
        head_init_scale: What the head's weights are multiplied by.

    Returns:
        A module from images (N, in_channels, H, W) to logits (N, num_classes).

    Source: appendix A.1; std 0.02 as in the authors' released code (Table 5 prints 0.2). Without norms: He et al. 2015,
        "Delving Deep into Rectifiers", as torchvision's VGG is initialised.
    """
    model: nn.Module
    if isinstance(net, TimmNet):
        model = _from_timm(net, num_classes=num_classes, in_chans=in_channels, drop_path_rate=drop_path)
    else:
        model = Network(net, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)
        _initialise(model, net, init)
    head = model.get_classifier()  # type: ignore[operator]
    if head_init_scale != 1 and isinstance(head, nn.Linear):
        head.weight.data.mul_(head_init_scale)
    return model


def _from_timm(net: TimmNet, **settings: Any) -> nn.Module:
    """Build a network of timm's, with stochastic depth of ours, which several processes draw together."""
    import timm

    model: nn.Module = timm.create_model(net.timm, **settings, **dict(net.args))
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, timm.layers.DropPath):
                setattr(parent, name, make_drop_path(child.drop_prob))
    return model
