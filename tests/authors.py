"""The authors' training once more, in plain PyTorch and in our own words, to hold ours against.

A batch is spread over several GPUs. Each has a copy of the network, mixes its own images with one draw, averages its
own BatchNorm and keeps its own running statistics; gradients are averaged over the GPUs, and the first one's statistics
are those that are kept. Networks are torchvision's and timm's; optimizers, schedule, groups of layers, mixup and cutmix
are written out here. `python -m tests.authors` writes what came of it to tests/golden/authors.csv.

Source: the descriptions in the paper (appendix A.1, Tables 5 and 6) and of the authors' two code bases.
"""

import copy
import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn

from roadmap.common.process_group import ALONE
from roadmap.common.seeding import seed_step
from roadmap.data.augmentation import make_mixing
from roadmap.data.datasets import describe_data
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import from_timm
from roadmap.networks.families import BASES, convnext
from roadmap.networks.model import build_model
from roadmap.recipe import Recipe, read_recipe
from roadmap.runs.config import DataConfig, RunConfig
from roadmap.training.loop import _Training
from roadmap.training.step import make_optimizer, make_scheduler
from tests.conftest import NET, TINY

GOLDEN = Path(__file__).parent / "golden" / "authors.csv"
CLASSES, SIDE, GPUS, STEPS = 5, 32, 4, 3


# -- the authors' procedure


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    """Return the rate of each step: a line from 0 to the rate, then half a cosine; or a step every so many epochs."""
    steps, warm = recipe.epochs * steps_per_epoch, int(recipe.warmup_epochs * steps_per_epoch)
    if recipe.schedule == "step":
        return [
            recipe.lr * recipe.decay_rate ** (t // int(recipe.decay_epochs * steps_per_epoch)) for t in range(steps)
        ]
    half = (recipe.lr - recipe.min_lr) / 2
    rest = steps - warm
    cosine = [recipe.min_lr + half * (1 + math.cos(math.pi * t / rest)) for t in range(rest)]
    return [*np.linspace(0.0, recipe.lr, warm).tolist(), *cosine]


def layer_of(name: str, depths: tuple[int, ...]) -> tuple[int, int]:
    """Return a tensor's group in a ConvNeXt of depths 3, 3, 9, 3 or 3, 3, 27, 3, by timm's name, and the last group."""
    last_but_one = {9: 6, 27: 12}[depths[2]]
    parts = name.split(".")
    if parts[0] == "stem":
        return 0, last_but_one + 1
    if parts[0] != "stages":
        return last_but_one + 1, last_but_one + 1
    stage, is_block = int(parts[1]), parts[2] == "blocks"
    if stage == 2:
        return 3 + (int(parts[3]) // 3 if is_block else 0), last_but_one + 1
    return {0: 1, 1: 2, 3: last_but_one}[stage], last_but_one + 1


def mix(recipe: Recipe, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image of one GPU with its mirror in the batch, all by the same draw; return them and soft labels."""
    height, width = images.shape[2:]
    soft = torch.full((len(labels), CLASSES), recipe.label_smoothing / CLASSES)
    soft[torch.arange(len(labels)), labels] += 1 - recipe.label_smoothing
    if not (recipe.mixup or recipe.cutmix):
        return images, soft
    np.random.rand()  # whether to mix at all: always
    cut = np.random.rand() < recipe.mixup_switch_prob
    share = np.random.beta(recipe.cutmix, recipe.cutmix) if cut else np.random.beta(recipe.mixup, recipe.mixup)
    if cut:
        sides = [int(side * math.sqrt(1 - share)) for side in (height, width)]
        centre = [np.random.randint(side) for side in (height, width)]
        top, left = (max(0, c - side // 2) for c, side in zip(centre, sides, strict=True))
        ends = [c + (side + 1) // 2 for c, side in zip(centre, sides, strict=True)]
        bottom, right = min(height, ends[0]), min(width, ends[1])
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        mixed = share * images + (1 - share) * images.flip(0)
    return mixed, share * soft + (1 - share) * soft.flip(0)


class Cluster:
    """Several GPUs that train one network together, in this process, in double precision."""

    def __init__(self, model: nn.Module, config: RunConfig, rates: list[float], depths: tuple[int, ...]) -> None:
        self.config, self.recipe, self.rates, self.depths, self.model = config, config.recipe, rates, depths, model
        self.state: dict[str, tuple[Tensor, Tensor]] = {}

    def train_step(self, step: int, images: Tensor, labels: Tensor) -> float:
        """Train on one batch, of equal parts for all GPUs; return the mean loss."""
        losses, gradients = [], []
        self.model.train()
        kept: Mapping[str, Tensor] = {}
        for gpu, (some, wanted) in enumerate(zip(images.chunk(GPUS), labels.chunk(GPUS), strict=True)):
            copied = copy.deepcopy(self.model)
            seed_step(self.config.seed, step, gpu, 2)  # ours draw from here, and so the same
            mixed, soft = mix(self.recipe, some, wanted)
            seed_step(self.config.seed, step, gpu, 3)
            loss = -(soft * copied(mixed).log_softmax(1)).sum(1).mean()
            loss.backward()
            losses.append(loss.item())
            gradients.append({name: p.grad for name, p in copied.named_parameters()})
            kept = kept or dict(copied.named_buffers())
        self.model.load_state_dict(dict(kept), strict=False)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                gradient = torch.stack([of_gpu[name] for of_gpu in gradients]).mean(0)  # type: ignore[misc]
                self._update(name, parameter, gradient, step)
        return sum(losses) / len(losses)

    def _update(self, name: str, parameter: Tensor, gradient: Tensor, step: int) -> None:
        recipe, rate = self.recipe, self.rates[step]
        if recipe.layer_decay != 1:
            group, last = layer_of(name, self.depths)
            rate *= recipe.layer_decay ** (last - group)
        first, second = self.state.get(name, (torch.zeros_like(parameter), torch.zeros_like(parameter)))
        decays = parameter.ndim > 1 or recipe.decay_norms_and_biases
        if recipe.optimizer == "sgd":
            first = recipe.momentum * first + gradient + recipe.weight_decay * decays * parameter
            parameter -= rate * first
        else:
            one, two = recipe.betas
            parameter *= 1 - rate * recipe.weight_decay * decays
            first, second = one * first + (1 - one) * gradient, two * second + (1 - two) * gradient**2
            unbiased = first / (1 - one ** (step + 1)), second / (1 - two ** (step + 1))
            parameter -= rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        self.state[name] = first, second


# -- ours beside it


@dataclass(frozen=True)
class Comparison:
    """Something of ours, what it is held against, and how far apart they may be."""

    ours: str
    theirs: str
    greatest: Callable[[], float]
    bound: float


@contextmanager
def in_double() -> Iterator[None]:
    """Have everything computed in double precision, also a step's loss, which it would take to float32."""
    torch.set_default_dtype(torch.double)
    try:
        with mock.patch.object(Tensor, "float", lambda tensor: tensor):
            yield
    finally:
        torch.set_default_dtype(torch.float)


def steps_apart(net: NetConfig, build: Callable[[], nn.Module], settings: dict[str, Any], recipe: str) -> float:
    """Train ours and the authors' way from the same weights for a few steps; return how far they end apart.

    That is the greatest difference of any loss, parameter and running statistic, as a share of the greatest change of
    a parameter.
    """
    small = {"dataset": "cifar10", "image_size": SIDE, "batch_size": 4 * GPUS, "ghost_batch": 4, "amp": "none"}
    off = {
        "random_resized_crop": 1.0,
        "color_jitter": 0.0,
        "test_resize": "shorter",
        "pretrained": False,
        "for_base": {},
    }
    asked = replace(read_recipe(recipe), **small, **off, **settings)
    config = RunConfig(net, asked, DataConfig("cifar10", "", CLASSES, 3, 2 * 4 * GPUS), 3)
    data: Any = mock.Mock(classes=tuple(map(str, range(CLASSES))))
    nowhere: Any = mock.Mock(folder=Path("nowhere"))  # nothing is read or written there
    run = _Training(config, data, nowhere, "cpu", 0.0, ALONE)
    torch.manual_seed(0)
    with in_double():  # stochastic depth's rates too
        theirs = build()
    for parameter in theirs.parameters():  # no tensor is idle
        parameter.data += 0.02 * torch.randn_like(parameter)
    start = from_timm(copy.deepcopy(theirs.state_dict()), net)
    run.model.double().load_state_dict(start)
    start = copy.deepcopy(run.model.state_dict())
    cluster = Cluster(theirs, config, learning_rates(asked, config.steps_per_epoch), net.depths)
    mixing, apart = make_mixing(asked, CLASSES, ALONE), 0.0
    run.parallel.train()
    with in_double():
        for step in range(STEPS):
            images = torch.randn(4 * GPUS, 3, SIDE, SIDE)
            labels = torch.randint(CLASSES, (4 * GPUS,))
            targets, mixed = labels, images.clone()
            if mixing is not None:
                mixed, targets = mixing(mixed, labels, config.seed, step)
            loss = run.train_step(mixed, targets).item()
            apart = max(apart, abs(loss - cluster.train_step(step, images, labels)))
    expected = from_timm(theirs.state_dict(), net)
    for name, tensor in run.model.state_dict().items():
        apart = max(apart, (tensor - expected[name]).abs().max().item())
    return apart / max((p - start[name]).abs().max().item() for name, p in run.model.named_parameters())


class Resnet(torchvision.models.ResNet):
    """torchvision's ResNet of four bottlenecks, with stochastic depth."""

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES)
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            rate = drop_path * number / 3
            if rate:
                stage[0].bn3.register_forward_hook(lambda _, __, out, rate=rate: timm.layers.drop_path(out, rate, True))


RESNET = replace(BASES["resnet50"], depths=(1, 1, 1, 1))


def narrow_convnext(stage_3: int, layer_scale: float | None) -> NetConfig:
    net = convnext("tiny", layer_scale=layer_scale)
    return replace(net, depths=(3, 3, stage_3, 3), widths=(8, 12, 16, 20))


CONVNEXT = narrow_convnext(9, layer_scale=0.5)


def timms(net: NetConfig, drop_path: float) -> nn.Module:
    scale = net.block.layer_scale
    return timm.models.ConvNeXt(
        depths=net.depths, dims=net.widths, num_classes=CLASSES, drop_path_rate=drop_path, ls_init_value=scale
    )


def rates_apart(recipe: str, steps_per_epoch: int) -> float:
    """Return the greatest difference of a recipe's learning rate at any step, as a share of the largest."""
    asked = read_recipe(recipe)
    scheduler = make_scheduler(asked, torch.optim.SGD([nn.Parameter(torch.zeros(1))], asked.lr), steps_per_epoch)
    rates = learning_rates(asked, steps_per_epoch)
    return max(abs(scheduler._get_lr(step)[0] - rate) for step, rate in enumerate(rates)) / asked.lr


def groups_apart(stage_3: int) -> float:
    """Return the greatest difference of any tensor's share of the learning rate and weight decay in fine-tuning."""
    net, recipe = narrow_convnext(stage_3, 1e-6), replace(read_recipe("finetune_384_1k"), weight_decay=0.5)
    ours, theirs = build_model(net, num_classes=CLASSES), timms(net, 0.0)
    groups = make_optimizer(recipe, ours).param_groups
    found = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    numbers = {name: torch.tensor(float(n)) for n, name in enumerate(theirs.state_dict())}
    by_number = dict(enumerate(theirs.named_parameters()))
    named = from_timm({name: numbers[name].expand_as(p) for name, p in theirs.state_dict().items()}, net)
    apart = 0.0
    for name, parameter in ours.named_parameters():
        their_name, tensor = by_number[int(named[name].flatten()[0])]
        group, last = layer_of(their_name, net.depths)
        expected = recipe.layer_decay ** (last - group), recipe.weight_decay * (tensor.ndim > 1)
        apart = max(apart, *(abs(a - b) for a, b in zip(found[id(parameter)], expected, strict=True)))
    return apart


QUICK = {"epochs": 3, "warmup_epochs": 2.0}  # two steps an epoch
COMPARISONS = (
    Comparison(
        "`imagenet`: 3 steps of a ResNet with BatchNorm, ghost batches, mixup and cutmix, stochastic depth",
        "4 GPUs, torchvision's ResNet, AdamW written out",
        lambda: steps_apart(RESNET, lambda: Resnet(0.5), {**QUICK, "drop_path": 0.5}, "imagenet"),
        1e-9,
    ),
    Comparison(
        "`imagenet`: 3 steps of a ConvNeXt with layer scale, likewise",
        "4 GPUs, timm's ConvNeXt, AdamW written out",
        lambda: steps_apart(CONVNEXT, lambda: timms(CONVNEXT, 0.5), {**QUICK, "drop_path": 0.5}, "imagenet"),
        1e-9,
    ),
    Comparison(
        "`imagenet_original`: 3 steps of a ResNet with BatchNorm and ghost batches",
        "4 GPUs, torchvision's ResNet, SGD written out",
        lambda: steps_apart(RESNET, Resnet, {"epochs": 3, "decay_epochs": 1.0, "lr": 0.01}, "imagenet_original"),
        1e-9,
    ),
    Comparison(
        "`finetune_384_1k`: 3 steps of a ConvNeXt with layer scale and layer-wise learning rates",
        "4 GPUs, timm's ConvNeXt, AdamW written out",
        lambda: steps_apart(CONVNEXT, lambda: timms(CONVNEXT, 0.8), {"epochs": 3}, "finetune_384_1k"),
        1e-9,
    ),
    *(
        Comparison(
            f"`{name}`: the learning rate at each of its {read_recipe(name).epochs * steps:,} steps",
            "the schedule written out",
            lambda name=name, steps=steps: rates_apart(name, steps),  # type: ignore[misc]
            1e-12,
        )
        for name, steps in {
            "imagenet": 312,
            "imagenet22k": 3466,
            "imagenet_original": 5004,
            "finetune_384": 2502,
        }.items()
    ),
    *(
        Comparison(
            f"layer-wise learning rates and weight decay of each tensor, depths 3, 3, {stage_3}, 3",
            f"the groups written out, {groups} between stem and head",
            lambda stage_3=stage_3: groups_apart(stage_3),  # type: ignore[misc]
            1e-12,
        )
        for stage_3, groups in {9: 6, 27: 12}.items()
    ),
)


def processes_apart(size: int) -> float:
    """Train a BatchNorm network with ghost batches and everything else on in one process and in several.

    Returns:
        The greatest difference of any weight afterwards, as a share of the greatest change of one.
    """
    from tests.training import test_process_group as processes

    with TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        processes.save_images(images, 200)
        settings = {"optimizer": "sgd", "lr": 2e-3, "epochs": 1, "batch_size": 128, "ghost_batch": 32}
        recipe = Recipe(**TINY | processes.EVERYTHING | settings)
        config = RunConfig(NET, recipe, describe_data(recipe, images), 0)
        for count in (1, size):
            assert processes.train_together(count, config, Path(folder) / f"{count}", images) == [0] * count
        one, several = (processes.left_in(Path(folder) / f"{count}")[0] for count in (1, size))
    seed_step(config.seed, -1 % 2**32)
    start = build_model(NET, num_classes=10, in_channels=1).state_dict()
    apart = max((one[name] - several[name]).abs().max().item() for name in one)
    return apart / max((one[name] - start[name]).abs().max().item() for name in one if "running" not in name)


# Which test_process_group.py trains itself.
BETWEEN_PROCESSES = tuple(
    Comparison(
        f"a BatchNorm network with ghost batches, mixup and stochastic depth, trained by {size} processes (float32)",
        "one process",
        lambda size=size: processes_apart(size),  # type: ignore[misc]
        1e-4,
    )
    for size in (2, 4)
)


def compare() -> str:
    """Return what is compared with what and the greatest difference found, as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["ours", "held against", "greatest difference"])
    for each in (*COMPARISONS, *BETWEEN_PROCESSES):
        apart = each.greatest()
        table.writerow([each.ours, each.theirs, f"{apart:.1e}" if apart else "0"])
    return text.getvalue()


if __name__ == "__main__":
    GOLDEN.write_text(compare(), encoding="utf-8")
    print(f"Wrote {GOLDEN}.")
