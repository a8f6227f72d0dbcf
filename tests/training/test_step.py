import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap import build_model
from roadmap.common.process_group import ALONE
from roadmap.common.seeding import seed_step
from roadmap.networks.config import NetConfig
from roadmap.networks.families import BASES, convnext
from roadmap.runs.config import RunConfig
from roadmap.training.parallel import GhostBatches
from roadmap.training.step import make_model, make_optimizer, make_scaler, make_scheduler, take_step
from tests.samples import LAYER_NORM, make_recipe

MakeRun = Callable[..., RunConfig]


def layer_scales(net: NetConfig, decay: float) -> dict[str, float]:
    """Return the share of the learning rate that each parameter gets."""
    with torch.device("meta"):
        model = build_model(net)
    groups = make_optimizer(make_recipe(layer_decay=decay), model).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}


@pytest.mark.parametrize(
    ("net", "layers"),
    [(convnext("base"), 12), (convnext("tiny"), 6), (BASES["resnet50"], 1 + 2 + 2 + 1)],
    ids=["convnext_base", "convnext_tiny", "resnet50"],
)
def test_three_blocks_share_a_learning_rate_and_the_head_has_the_whole(net: NetConfig, layers: int) -> None:
    scales = layer_scales(net, 0.5)
    assert {name: scale for name, scale in scales.items() if scale == 1}.keys() == {
        name for name in scales if name.startswith(("head", "norm"))
    }
    assert {scales[name] for name in scales if name.startswith("stages")} == {0.5**n for n in range(1, layers + 1)}
    assert scales["stem.conv.weight"] == 0.5 ** (layers + 1)
    assert scales["stages.0.0.residual.spatial.weight"] == scales["stages.0.2.residual.spatial.weight"]
    blocks = [scales[f"stages.2.{number}.residual.spatial.weight"] for number in range(6)]
    assert blocks[0] == blocks[1] == blocks[2] < blocks[3] == blocks[4] == blocks[5]


def test_a_downsampling_layer_learns_with_the_blocks_behind_it() -> None:
    scales = layer_scales(convnext("base"), 0.8)
    for stage in (1, 2, 3):
        assert scales[f"stages.{stage}.downsample.conv.weight"] == scales[f"stages.{stage}.0.residual.spatial.weight"]


def step_of(
    config: RunConfig, seed: int = 0, size: int = 64, mixed: bool = False
) -> tuple[Tensor, list[Tensor], nn.Module]:
    """Take one SGD step; return the loss, the gradients and the network."""
    torch.manual_seed(seed)
    model = make_model(config, "cpu").train()
    optimizer = make_optimizer(config.recipe, model)
    images = torch.randn(size, config.data.in_channels, 32, 32)
    labels = torch.randint(config.data.num_classes, (size,))
    if mixed:
        labels = torch.rand(size, config.data.num_classes).softmax(1)
    loss = take_step(config.recipe, model, optimizer, make_scaler(config.recipe, "cpu"), images, labels)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return loss, gradients, model


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "schedule": "step"}


def test_a_batch_in_pieces_gives_the_gradient_of_the_whole_batch_where_no_norm_looks_across_images(
    tiny_run: MakeRun,
) -> None:
    whole, pieces = (step_of(tiny_run(net=LAYER_NORM, accumulate=n, **SGD)) for n in (1, 4))
    torch.testing.assert_close(pieces[0], whole[0])
    for ours, theirs in zip(pieces[1], whole[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
def test_unequal_pieces_weigh_as_many_images_as_they_have(mixed: bool, tiny_run: MakeRun) -> None:
    whole, pieces = (step_of(tiny_run(net=LAYER_NORM, accumulate=n, **SGD), size=10, mixed=mixed) for n in (1, 4))
    torch.testing.assert_close(pieces[0], whole[0])
    for ours, theirs in zip(pieces[1], whole[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_batch_norm_averages_over_each_piece(tiny_run: MakeRun) -> None:
    whole, pieces = (step_of(tiny_run(accumulate=n, **SGD)) for n in (1, 4))
    assert not torch.allclose(pieces[0], whole[0], rtol=1e-4)


def test_a_ghost_batch_has_batch_norm_and_draws_of_its_own_and_the_first_ones_statistics_are_kept(
    tiny_run: MakeRun,
) -> None:
    config = tiny_run(ghost_batch=16, drop_path=0.5, label_smoothing=0.0, **SGD)
    torch.manual_seed(0)
    model = make_model(config, "cpu").train()
    ghosts = [(torch.randn(16, 1, 32, 32), torch.randint(10, (16,))) for _ in range(4)]
    images, labels = (torch.cat(parts) for parts in zip(*ghosts, strict=True))
    ones, gradients = [copy.deepcopy(model) for _ in ghosts], []
    for number, (one, (some, wanted)) in enumerate(zip(ones, ghosts, strict=True)):
        seed_step(config.seed, 7, number, 3)
        F.cross_entropy(one(some.contiguous(memory_format=torch.channels_last)), wanted).backward()
        gradients.append([parameter.grad for parameter in one.parameters()])
    optimizer = make_optimizer(replace(config.recipe, lr=1e-30), model)
    begin = partial(GhostBatches(config, model, ALONE).begin, 7)
    take_step(config.recipe, model, optimizer, make_scaler(config.recipe, "cpu"), images, labels, begin)
    for parameter, parts in zip(model.parameters(), zip(*gradients, strict=True), strict=True):
        torch.testing.assert_close(parameter.grad, torch.stack(parts).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dict(model.named_buffers()), dict(ones[0].named_buffers()))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"ghost_batch": 3}, "ghost_batch is 3, but must divide batch_size, 8."),
        ({"ghost_batch": 1, "mixup": 0.8}, "and be even, for mixup and cutmix mix pairs"),
        ({"ghost_batch": 4, "accumulate": 2}, "accumulate is 2, but a batch is taken in ghost batches of 4"),
        ({"ghost_batch": 4, "sync_batch_norm": True}, "BatchNorm averages over each ghost batch of 4 images"),
    ],
)
def test_ghost_batches_that_do_not_fit_are_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(error)):
        make_recipe(**settings)


@pytest.mark.parametrize(("warmup_epochs", "first"), [(3.0, 0.0), (0.25, 0.0), (0.0, 1.0)])
def test_a_warm_up_that_reaches_the_rate_is_at_zero_first_and_at_the_rate_last(
    warmup_epochs: float, first: float
) -> None:
    recipe = make_recipe(epochs=8, lr=1.0, warmup_epochs=warmup_epochs, warmup_reaches_lr=True, min_lr=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.lr)
    scheduler, rates = make_scheduler(recipe, optimizer, 4), []
    for step in range(1, 33):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step)
    warm = int(4 * warmup_epochs)
    cosine = [0.1 + 0.45 * (1 + math.cos(math.pi * step / (32 - warm))) for step in range(32 - warm)]
    line = [step / max(warm - 1, 1) for step in range(warm)]
    assert rates == pytest.approx([*line, *cosine])
    assert rates[0] == first


def test_mixed_targets_are_cut_with_their_images(tiny_run: MakeRun) -> None:
    config = tiny_run(net=LAYER_NORM, accumulate=4, label_smoothing=0.0, **SGD)
    torch.manual_seed(0)
    model = make_model(config, "cpu").train()
    images, labels = torch.randn(64, 1, 32, 32), torch.randint(10, (64,))
    losses = []
    for targets in (labels, nn.functional.one_hot(labels, 10).float()):
        optimizer = make_optimizer(replace(config.recipe, lr=1e-30), model)
        losses.append(take_step(config.recipe, model, optimizer, make_scaler(config.recipe, "cpu"), images, targets))
    torch.testing.assert_close(*losses)


def test_a_step_whose_float16_gradients_overflow_is_left_out(tiny_run: MakeRun) -> None:
    config = tiny_run(amp="float16", **SGD)
    model = make_model(config, "cpu").train()
    before = [p.clone() for p in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=1e30)
    optimizer = make_optimizer(config.recipe, model)
    take_step(config.recipe, model, optimizer, scaler, torch.randn(8, 1, 32, 32), torch.zeros(8).long())
    assert all(map(torch.equal, before, model.parameters()))
    assert scaler.get_scale() < 1e30


def test_the_heads_first_weights_are_scaled_and_nothing_else(tiny_run: MakeRun) -> None:
    models = []
    for scale in (1.0, 0.001):
        torch.manual_seed(0)
        models.append(make_model(tiny_run(head_init_scale=scale), "cpu").state_dict())
    assert all(
        torch.equal(small, full * 0.001 if name == "head.weight" else full)
        for (name, full), small in zip(models[0].items(), models[1].values(), strict=True)
    )


@pytest.mark.parametrize("net", [NetConfig(depths=(1, 1), widths=(4, 8)), LAYER_NORM], ids=["resnet", "convnext"])
def test_the_compiler_takes_a_network_in_one_piece(net: NetConfig) -> None:
    torch.manual_seed(0)
    model = build_model(net, in_channels=1, num_classes=10, drop_path=0.1)
    images = torch.randn(4, 1, 32, 32).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    outputs = []
    for each in (model, compiled):
        torch.manual_seed(1)
        outputs.append(each(images))
    torch.testing.assert_close(*outputs)
