"""From a `NetConfig` to a network and its initialisation; nothing else knows how the parts fit."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NoReturn, overload

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from roadmap.common.errors import UserError
from roadmap.networks.blocks import Block, Downsample, HeadConv, Stem, make_norm
from roadmap.networks.config import Init, NetConfig
from roadmap.networks.library_models import head_of
from roadmap.networks.nets import FactoryNet, ModifiedNet, Net, TimmNet

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
        global_pool: How the last stage's output is pooled: "avg", or "" where it is not, which leaves no head.
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
        """Map images (N, in_chans, H, W) to logits (N, num_classes), or to what `forward_head` gives without a head."""
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

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last stage's output to logits (N, num_classes), or to what the head sees, (N, head_hidden_size).

        Without pooling it is the map (N, head_hidden_size, H / stride, W / stride).
        """
        x = self.head_conv(x)
        if not self.global_pool:
            out: Tensor = self.norm(x)
            return out
        x = self.norm(x.mean((2, 3), keepdim=True)).flatten(1)
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, self.training)
        out = x if pre_logits else self.head(x)
        return out

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Map images to the last stage's output and those of the stages that were asked for, as timm's models do.

        Args:
            x: Images, (N, in_chans, H, W).
            indices: The stages, from 0, from the end if negative; a number is so many of the last; None is all.
            norm: Has no effect, as in timm's ConvNeXt: the last norm stands behind the pooling.
            stop_early: Whether to leave out the stages behind the last that was asked for.
            output_fmt: "NCHW", the only one.
            intermediates_only: Whether to return the stages' outputs alone.

        Raises:
            UserError: If there is no such stage, or another format is asked for.
        """
        count = len(self.stages)
        if isinstance(indices, int):
            indices = range(-indices, 0)
        indices = range(count) if indices is None else indices
        if strange := [index for index in indices if not -count <= index < count]:
            raise UserError(f"forward_intermediates: no stage {strange[0]}, but {count}, from 0 or from -{count} up.")
        if output_fmt != "NCHW":
            raise UserError(f"forward_intermediates: output_fmt is '{output_fmt}', but these networks give 'NCHW'.")
        wanted = [index % count for index in indices]
        x, outputs = self.stem(x), []
        for number, stage in enumerate(self.stages[: max(wanted, default=-1) + 1] if stop_early else self.stages):
            x = stage(x)
            if number in wanted:
                outputs.append(x)
        return outputs if intermediates_only else (x, outputs)

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse `torch.jit.script`, which asks here first.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "torch.jit.script: these networks cannot be scripted. Use torch.jit.trace, torch.export or torch.compile; "
            "'export --format onnx' writes a trained one for other runtimes."
        )

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one, initialised as the first was.

        Args:
            num_classes: Outputs; 0 leaves the features as they are.
            global_pool: "avg"; "" for none, without a head; None leaves it as it is.

        Raises:
            UserError: If another pooling is asked for, or a head without any.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("avg", "") or (not pool and num_classes):
            raise UserError(
                f"global_pool is '{pool}' with num_classes={num_classes}, but these networks average ('avg'), or give "
                "what is not pooled ('') without a head. Use num_classes=0 with ''."
            )
        self.num_classes, self.global_pool = num_classes, pool
        self.head = self._make_head(num_classes).to(next(self.parameters()))
        initialise(self.head, self.net)

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


def initialise(model: nn.Module, net: NetConfig, init: Init = "trunc_normal") -> None:
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
    net: TimmNet | FactoryNet | ModifiedNet,
    *,
    num_classes: int = ...,
    in_channels: int = ...,
    drop_path: float = ...,
    init: Init = ...,
    head_init_scale: float = ...,
) -> nn.Module: ...


def build_model(
    net: Net,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    drop_path: float = 0.0,
    init: Init = "trunc_normal",
    head_init_scale: float = 1.0,
) -> nn.Module:
    """Build a network and initialise it, unless told otherwise as the authors do: truncated normal, std 0.02, biases 0.

    Where no norm sets the scale of what passes through, 13 layers of such weights leave nothing of an image, so there
    convolutions start as He et al. have them. A network that is not ours starts as its function has it.

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
    model: nn.Module = net.build(num_classes=num_classes, in_channels=in_channels, drop_path=drop_path, init=init)
    if head_init_scale != 1:
        _, head = head_of(model, num_classes)
        if isinstance(head, nn.Linear):
            head.weight.data.mul_(head_init_scale)
    return model
