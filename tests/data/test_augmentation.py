"""Mixup and cutmix: what is drawn once for whom."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from roadmap.common.process_group import ALONE, Group
from roadmap.data.augmentation import make_mixing
from tests.samples import make_recipe

CLASSES = 2
MIX = {"mixup": 0.8, "cutmix": 1.0, "batch_size": 16, "image_size": 8}


def mixed(settings: dict[str, Any], group: Group = ALONE, seed: int = 0, step: int = 0) -> tuple[Tensor, Tensor]:
    """Mix a batch whose pairs are an image of zeros, class 0, and one of ones, class 1; return it and its targets."""
    recipe = make_recipe(**MIX | settings)
    ghost = recipe.ghost_batch or recipe.batch_size
    labels = (torch.arange(recipe.batch_size) % ghost >= ghost // 2).long()
    ours = group.share(recipe.batch_size, recipe.ghost_batch)
    images = labels[ours].float()[:, None, None, None].expand(-1, 1, 8, 8).clone()
    mixing = make_mixing(recipe, CLASSES, group)
    assert mixing is not None
    np.random.seed(step)
    return mixing(images, labels[ours], seed, step)


def draws(settings: dict[str, Any], steps: int) -> tuple[Tensor, Tensor]:
    """Return the shares that ghost batches kept of their own images, and whether cutmix cut them: (steps, ghosts)."""
    size = settings.get("ghost_batch") or MIX["batch_size"]
    kept, cut = [], []
    for step in range(steps):
        images, targets = mixed(settings, step=step)
        parts = list(zip(images.split(size), targets.split(size), strict=True))
        for some, wanted in parts:  # one draw for all of them
            assert len(wanted[: size // 2].unique(dim=0)) == len(some[: size // 2].unique(dim=0)) == 1
        kept.append(torch.stack([wanted[0, 0] for _, wanted in parts]))
        cut.append(torch.stack([((some[0] == 0) | (some[0] == 1)).all() for some, _ in parts]))
    return torch.stack(kept), torch.stack(cut)


def test_each_ghost_batch_draws_its_own_mode_and_share_as_the_authors_gpus_do() -> None:
    shares, _ = draws({"ghost_batch": 4, "cutmix": 0.0, "label_smoothing": 0.0}, 500)
    assert shares.shape == (500, 4)
    for of_ghost in shares.T:
        assert kstest(of_ghost.numpy(), "beta", args=(0.8, 0.8)).pvalue > 1e-3
    assert np.corrcoef(shares.T.numpy())[~np.eye(4, dtype=bool)].max() < 0.15  # 3.4 standard errors
    _, cut = draws({"ghost_batch": 4}, 500)
    assert cut.float().mean(0).numpy() == pytest.approx(0.5, abs=0.08)  # 3.6 standard errors
    assert np.corrcoef(cut.T.numpy())[~np.eye(4, dtype=bool)].max() < 0.15


def test_without_ghost_batches_a_batch_draws_once() -> None:
    shares, cut = draws({}, 20)
    assert shares.shape == cut.shape == (20, 1)
    assert len(shares.unique()) > 15


@pytest.mark.parametrize("size", [2, 4])
def test_what_a_ghost_batch_draws_does_not_depend_on_who_has_it(size: int) -> None:
    alone = mixed({"ghost_batch": 4}, step=3)
    parts = [mixed({"ghost_batch": 4}, Group(rank, size), step=3) for rank in range(size)]
    for whole, together in zip(alone, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(together), whole)


def test_another_seed_or_step_draws_anew() -> None:
    targets = [mixed({"ghost_batch": 4}, seed=seed, step=step)[1] for seed, step in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert torch.equal(targets[0], targets[3])
    assert not torch.equal(targets[0], targets[1])
    assert not torch.equal(targets[0], targets[2])
