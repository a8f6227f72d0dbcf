"""What LayerNorm costs: `python -m benchmarks.layer_norm`.

Two tables, each measured side by side. The first trains the rung before LayerNorm (BatchNorm) and the rung with it, by
way of each LayerNorm that could do the work: how many images per second of BatchNorm's that leaves, and how much of the
time the profiler finds in kernels that only copy. The second is of the norm alone, forward and backward.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.side_by_side import (
    Progress,
    options,
    print_head,
    print_row,
    ratio,
    run,
)
from roadmap.common.machine import choose_device
from roadmap.ladder.ladder import read_ladder
from roadmap.measuring.turns import take_turns, timed
from roadmap.networks.blocks import LayerNorm
from roadmap.runs.config import RunConfig
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.step import make_model, make_optimizer, make_scaler, take_step

BATCH_NORM, LAYER_NORM = "fewer_norms", "layer_norm"  # the rungs
COPIES = ("aten::copy_", "aten::contiguous", "aten::clone")
OURS = "LayerNorm on permuted views (ours)"
COPYING = "LayerNorm on copies"


class CopyingLayerNorm(LayerNorm):
    """Ours as it would be on tensors that are not channels_last: a permutation, made real."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over dimension 1, copying to the layout that the kernel reads and back."""
        return super().forward(x.contiguous()).contiguous()


class WrittenOut(LayerNorm):
    """The mean and variance over dimension 1 by tensor operations, as published ConvNeXts of plain torch have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over dimension 1."""
        variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    OURS: partial(LayerNorm, eps=1e-6),
    "timm's LayerNorm2d": partial(LayerNorm2d, eps=1e-6),
    "written out": partial(WrittenOut, eps=1e-6),
    COPYING: partial(CopyingLayerNorm, eps=1e-6),
}


@dataclass(frozen=True)
class Scale:
    """One comparison: the ladder's networks at a width and image size.

    Attributes:
        label: What the table calls it.
        full_width: Whether the networks are the paper's; else the default proxy's, whose recipe both train under.
        image_size: Height and width of the images, pixels.
        batch_size: Images a step.
        steps: Steps a visit.
    """

    label: str
    full_width: bool
    image_size: int
    batch_size: int
    steps: int


def replace_norms(model: nn.Module, make: Callable[[int], nn.Module]) -> None:
    """Put another norm in the place of every LayerNorm of a network."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, LayerNorm):
                setattr(module, name, make(child.weight.numel()).to(child.weight.device))


def training(
    config: RunConfig, scale: Scale, device: str, norm: Callable[[int], nn.Module] | None = None
) -> Callable[[], None]:
    """Return the work of a visit: some training steps of a run's network on noise."""
    model = make_model(config, device)
    if norm:
        replace_norms(model, norm)
    model.train()
    recipe = config.recipe
    optimizer, scaler = make_optimizer(recipe, model), make_scaler(recipe, device)
    shape = (scale.batch_size, config.data.in_channels, scale.image_size, scale.image_size)
    images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(config.data.num_classes, (scale.batch_size,), device=device)

    def steps() -> None:
        for _ in range(scale.steps):
            take_step(recipe, model, optimizer, scaler, images, targets)

    return steps


def share_of_copies(work: Callable[[], None], batch_size: int, device: str) -> float:
    """Return the percentage of the time of all kernels that goes to copies of feature maps.

    That is what a change of layout takes. Copies of weights' gradients, and of biases into the results of matrix
    products, are others.
    """
    activities = [ProfilerActivity.CPU] if device == "cpu" else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, record_shapes=True) as seen:
        work()
    name = f"self_{'cpu' if device == 'cpu' else 'device'}_time_total"
    copies = total = 0.0
    for event in seen.key_averages(group_by_input_shape=True):
        total += getattr(event, name)
        shape = event.input_shapes[0] if event.input_shapes else []
        if event.key in COPIES and len(shape) == 4 and shape[0] == batch_size:
            copies += getattr(event, name)
    return 100 * copies / total


def compare_rungs(scale: Scale, device: str, rounds: int, progress: Progress) -> None:
    """Print a row for BatchNorm and one for each LayerNorm at a scale."""
    with TemporaryDirectory() as runs:
        study = plan_study(StudySpec("resnet50", "fashion", read_ladder(), runs=Path(runs), seeds=[0]))
    before, after = study.configs[BATCH_NORM, 0], study.configs[LAYER_NORM, 0]
    if scale.full_width:
        nets = {rung.id: rung.net for rung in read_ladder().climb("resnet50")}
        before, after = replace(before, net=nets[BATCH_NORM]), replace(after, net=nets[LAYER_NORM])
    works = {"BatchNorm": training(before, scale, device)}
    works |= {name: training(after, scale, device, make) for name, make in NORMS.items()}
    seconds = take_turns(
        {name: timed(work, device) for name, work in works.items()},
        rounds,
        show=progress.of(scale.label),
        warm_up=True,
    )
    progress.clear()
    images = scale.steps * scale.batch_size
    for name, times in seconds.items():
        speed, copies = images / median(times), share_of_copies(works[name], scale.batch_size, device)
        print_row(scale.label, name, f"{speed:,.1f}", ratio(seconds["BatchNorm"], times), f"{copies:.1f}%")


def alone(norm: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return the work of a visit: a norm's forward and backward pass."""
    gradient = torch.randn_like(x)

    def both() -> None:
        norm(x).backward(gradient)
        x.grad = None

    return both


def compare_norms(shape: tuple[int, int, int, int], device: str, rounds: int, progress: Progress) -> None:
    """Print a row for each norm on tensors of a shape (N, C, H, W), channels_last."""
    x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    norms: dict[str, nn.Module] = {"BatchNorm": nn.BatchNorm2d(shape[1])}
    norms |= {name: make(shape[1]) for name, make in NORMS.items()}
    norms["GroupNorm(1): not over channels alone"] = nn.GroupNorm(1, shape[1])
    visits = {name: timed(alone(norm.to(device), x), device) for name, norm in norms.items()}
    seconds = take_turns(visits, rounds, show=progress.of(), warm_up=True)
    progress.clear()
    for name, times in seconds.items():
        size = "x".join(map(str, shape))
        print_row(size, name, f"{1e3 * median(times):.2f}", ratio(times, seconds["BatchNorm"]))


def main() -> None:
    """Print the tables."""
    arguments = options(__doc__).parse_args()
    device, quick = choose_device(arguments.device), arguments.quick
    torch.set_num_threads(1)
    progress = Progress()
    if quick:
        scales = [Scale("width / 8, 32x32", False, 32, 8, 1)]
    elif device == "cpu":
        scales = [Scale("width / 8, 32x32", False, 32, 64, 4), Scale("full width, 64x64", True, 64, 8, 1)]
    else:
        scales = [Scale("width / 8, 32x32", False, 32, 64, 20), Scale("full width, 224x224", True, 224, 128, 5)]
    rounds = 1 if quick else 20
    print_head("scale", "norm", "images/s", "of BatchNorm's", "time in copies of feature maps")
    for scale in scales:
        compare_rungs(scale, device, rounds if scale.image_size == 32 else max(1, rounds // 3), progress)
    print()
    print_head("tensor", "norm alone", "ms", "times BatchNorm's")
    for shape in [(8, 12, 8, 8)] if quick else [(64, 12, 8, 8), (8, 96, 56, 56)]:
        compare_norms(shape, device, rounds, progress)


if __name__ == "__main__":
    run(main)
