"""Attacks on a trained network, by the Adversarial Robustness Toolbox: which images it still gets right under them.

An attack may change each pixel of an image by up to a radius; radii are in the images' own scale, where pixels go from
0 to 1, and images stay within it. Attacks know the label and want any other class. They compute in float32, whatever
precision the network was trained in, and see it as it is tested: what normalises and pads an image is part of it.

Source: FGSM: Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples"; PGD: Madry et al. 2018, "Towards
    Deep Learning Models Resistant to Adversarial Attacks"; Square: Andriushchenko et al. 2020, "Square Attack".
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roadmap.common.errors import UserError
from roadmap.common.seeding import seed_step

if TYPE_CHECKING:
    from roadmap.data.batches import Data

SEED = 20190327  # of random starts and squares: the same for all networks
BATCH_PIXELS = 256 * 32 * 32  # in a batch: larger images come in smaller ones

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Bools = NDArray[np.bool_]


def require_toolbox() -> None:
    """Have the toolbox that the attacks are from.

    Raises:
        UserError: If it is not installed.
    """
    if find_spec("art") is None:
        raise UserError(
            "the attacks are adversarial-robustness-toolbox's, which is not installed. pip install -e '.[robustness]'."
        )


class _OfPixels(nn.Module):
    """A network of pixels from 0 to 1."""

    def __init__(self, model: nn.Module, data: "Data") -> None:
        super().__init__()
        self.model, self.data = model, data

    def forward(self, pixels: Tensor) -> Tensor:
        images = self.data.prepare(pixels).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.model(images)
        return logits


class Target:
    """A trained network that is attacked."""

    def __init__(self, model: nn.Module, data: "Data", shape: tuple[int, ...], device: str) -> None:
        """Take a network on its device, its data, and the shape (C, H, W) of an image."""
        from art.estimators.classification import PyTorchClassifier

        self.classes = len(data.classes)
        self.options = {"batch_size": max(1, BATCH_PIXELS // (shape[1] * shape[2]))}
        model.eval().requires_grad_(False)
        self.estimator: Any = PyTorchClassifier(
            model=_OfPixels(model, data),
            loss=nn.CrossEntropyLoss(),
            input_shape=shape,
            nb_classes=self.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if device != "cpu" else "cpu",
        )

    def right(self, images: Floats, labels: Labels) -> Bools:
        """Return for each image (N, C, H, W) whether the network predicts its label (N,)."""
        is_right: Bools = self.estimator.predict(images, **self.options).argmax(1) == labels
        return is_right

    def withstands_fgsm(self, images: Floats, labels: Labels, radius: float) -> Bools:
        """Return which images are still right after one step of the gradient's sign."""
        from art.attacks.evasion import FastGradientMethod

        attack = FastGradientMethod(self.estimator, eps=radius, **self.options)
        return self._withstands(attack, images, labels)

    def withstands_pgd(self, images: Floats, labels: Labels, radius: float, steps: int, restarts: int = 1) -> Bools:
        """Return which images are still right after projected gradient descent from random starts.

        Each restart goes on with those alone that have withstood so far. A step is 2.5 radii / steps long, so that all
        of the ball can be reached from anywhere in it.
        """
        from art.attacks.evasion.projected_gradient_descent import projected_gradient_descent_pytorch as pgd

        step = 2.5 * radius / steps
        attack = pgd.ProjectedGradientDescentPyTorch(
            self.estimator, eps=radius, eps_step=step, max_iter=steps, num_random_init=1, verbose=False, **self.options
        )
        left = np.ones(len(images), bool)
        for number in range(restarts):
            left[left] = self._withstands(attack, images[left], labels[left], number)
        return left

    def withstands_square(self, images: Floats, labels: Labels, radius: float, queries: int) -> Bools:
        """Return which images are still right after a random search that sees logits alone, and no gradient."""
        from art.attacks.evasion import SquareAttack

        attack = SquareAttack(self.estimator, eps=radius, max_iter=queries, verbose=False, **self.options)
        return self._withstands(attack, images, labels)

    def _withstands(self, attack: Any, images: Floats, labels: Labels, number: int = 0) -> Bools:
        if not len(images):
            return np.zeros(0, bool)
        seed_step(SEED, number)
        return self.right(attack.generate(images, np.eye(self.classes, dtype=np.float32)[labels]), labels)
