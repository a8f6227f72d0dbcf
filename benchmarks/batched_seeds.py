"""Whether several seeds train faster as one batched model: `python -m benchmarks.batched_seeds`.

The seeds of a small rung, each with weights and a batch of its own, take a step one after the other, and all at once by
`torch.func`: their weights stacked, the forward pass mapped over them by `vmap`, one backward pass, one optimizer step.
BatchNorm keeps no running statistics here, which `vmap` cannot update.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

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
from roadmap.runs.config import RunConfig
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.step import make_model

RUNGS = ("baseline", "move_up_depthwise", "separate_downsampling")
ROUNDS = 9


def make_seeds(config: RunConfig, count: int, device: str) -> list[nn.Module]:
    """Return a network for each seed, without running statistics."""
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = make_model(config, device).train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
        models.append(model)
    return models


def one_by_one(models: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a step of each network after the other; images (S, N, C, H, W), labels (S, N)."""
    optimizers = [torch.optim.AdamW(model.parameters(), fused=True) for model in models]

    def step() -> None:
        for model, optimizer, x, y in zip(models, optimizers, images, labels, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y).backward()
            optimizer.step()

    return step


def stack(models: list[nn.Module]) -> dict[str, Tensor]:
    """Return the weights of networks of one kind as those of one model, with a dimension more."""
    return {name: value.detach().requires_grad_() for name, value in stack_module_state(models)[0].items()}


def all_at_once(weights: dict[str, Tensor], model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a step of all networks in one; images (S, N, C, H, W), labels (S, N)."""
    optimizer = torch.optim.AdamW(weights.values(), fused=True)
    skeleton = copy.deepcopy(model).to("meta")

    def loss(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(skeleton, own, (x,)), y)

    def step() -> None:
        optimizer.zero_grad()
        vmap(loss)(weights, images, labels).sum().backward()
        optimizer.step()

    return step


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    device, progress, seeds = choose_device(arguments.device), Progress(), arguments.seeds
    torch.set_num_threads(1)
    rungs, rounds = (RUNGS[-1:], 1) if arguments.quick else (RUNGS, ROUNDS)
    print_head("rung", "images/s, one by one", f"{seeds} seeds at once", "ratio")
    with TemporaryDirectory() as folder:
        study = plan_study(StudySpec("resnet50", "fashion", read_ladder(), runs=Path(folder), seeds=[0]))
        for rung in rungs:
            config = study.configs[rung, 0]
            size, side = config.recipe.batch_size, config.recipe.image_size
            images = torch.randn(seeds, size, config.data.in_channels, side, side, device=device)
            labels = torch.randint(config.data.num_classes, (seeds, size), device=device)
            models = make_seeds(config, seeds, device)
            visits = {
                "one by one": timed(one_by_one(models, images, labels), device),
                "at once": timed(all_at_once(stack(models), models[0], images, labels), device),
            }
            seconds = take_turns(visits, rounds, show=progress.of(), warm_up=True)
            progress.clear()
            speeds = (f"{seeds * size / median(times):,.0f}" for times in seconds.values())
            print_row(rung, *speeds, ratio(seconds["one by one"], seconds["at once"]))


if __name__ == "__main__":
    run(main)
