"""Measuring a trained network: its logits on the test set, and what follows from them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.data.batches import Data
from roadmap.training.step import autocast

ECE_BINS = 15


@torch.inference_mode()
def predict(model: nn.Module, data: Data, device: str, *, amp: str = "none") -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) in float32 and labels (N,) for our share of the test set, on the CPU, in its order."""
    model.eval()
    logits, labels = [], []
    for images, targets in data.test():
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(amp, device):
            logits.append(model(images).float().cpu())
        labels.append(targets.cpu())
    if not labels:  # fewer test images than processes
        return torch.zeros(0, len(data.classes)), torch.zeros(0, dtype=torch.long)
    return torch.cat(logits), torch.cat(labels)


def metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the test metrics of logits (N, classes) against labels (N,); `results.COLUMNS` says what each is.

    Source: for the calibration error, Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    probabilities = logits.double().softmax(1)
    confidence, guess = probabilities.max(1)
    right = guess == labels
    top5 = (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(1)
    bins = (confidence * ECE_BINS).ceil().clamp(1, ECE_BINS).long() - 1
    gap = torch.zeros(ECE_BINS, dtype=torch.double).index_add_(0, bins, right.double() - confidence)
    totals = torch.bincount(labels, minlength=logits.shape[1])
    hits = torch.bincount(labels[right], minlength=logits.shape[1])
    return {
        "top1": 100 * right.double().mean().item(),
        "top5": 100 * top5.double().mean().item(),
        "nll": F.cross_entropy(logits.double(), labels).item(),
        "ece": 100 * (gap.abs().sum() / len(labels)).item(),
        "top1_per_class": [100 * h / t if t else None for h, t in zip(hits.tolist(), totals.tolist(), strict=True)],
        "test_images": len(labels),
    }
