"""Networks made by each library, small where it allows it, against ours with the same weights, both ways."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import Bottleneck

from roadmap import build_model
from roadmap.common.errors import UserError
from roadmap.common.libraries import LIBRARIES, Library
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import to_library, under_our_names, with_layer_scale
from roadmap.networks.families import BASES, convnext
from roadmap.networks.naming import NAMINGS, Naming
from tests.networks.test_convert import logits, random_weights

DEPTHS, WIDTHS, CLASSES = (1, 2, 1, 1), (8, 16, 24, 32), 5
RESNET = NetConfig(depths=(1, 2, 1, 1))
NARROW_RESNET = replace(RESNET, widths=WIDTHS)
CONVNEXT = replace(convnext("tiny", layer_scale=0.5), depths=DEPTHS, widths=WIDTHS)
LAST_RUNG = replace(CONVNEXT, block=replace(CONVNEXT.block, layer_scale=None))
ISOTROPIC = replace(convnext("isotropic_small"), depths=(2,), widths=(8,))


def timm_resnet() -> nn.Module:
    return timm.models.ResNet(timm.models.resnet.Bottleneck, layers=DEPTHS, num_classes=CLASSES)


def timm_convnext() -> nn.Module:
    return timm.models.ConvNeXt(depths=DEPTHS, dims=WIDTHS, num_classes=CLASSES)


def torchvision_resnet() -> nn.Module:
    return torchvision.models.ResNet(Bottleneck, list(DEPTHS), num_classes=CLASSES)


def torchvision_convnext() -> nn.Module:
    stages = [CNBlockConfig(*stage) for stage in zip(WIDTHS, (*WIDTHS[1:], None), DEPTHS, strict=True)]
    return torchvision.models.ConvNeXt(stages, num_classes=CLASSES)


class OfTransformers(nn.Module):
    """A network of transformers, whose forward pass returns an object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.model(images).logits
        return out

    def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
        return self.model.state_dict()

    def load_state_dict(self, weights: dict[str, Tensor], **options: bool) -> None:  # type: ignore[override]
        self.model.load_state_dict(weights, **options)


class OfTheAuthors(OfTransformers):
    """timm's ConvNeXt behind timm's own translation of the authors' names."""

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.model(images)
        return out

    def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
        return to_library(ours(CONVNEXT).state_dict(), CONVNEXT, "official")

    def load_state_dict(self, weights: dict[str, Tensor], **options: bool) -> None:  # type: ignore[override]
        translated = timm.models.convnext.checkpoint_filter_fn(dict(weights), self.model)
        self.model.load_state_dict(translated, **options)


def transformers_resnet(widths: tuple[int, ...] = (64, 128, 256, 512)) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=widths[0], hidden_sizes=[4 * width for width in widths], depths=DEPTHS, num_labels=CLASSES
    )
    return OfTransformers(transformers.ResNetForImageClassification(config))


def transformers_convnext() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(hidden_sizes=WIDTHS, depths=DEPTHS, num_labels=CLASSES, layer_norm_eps=1e-6)
    return OfTransformers(transformers.ConvNextForImageClassification(config))


def official_convnext() -> nn.Module:
    return OfTheAuthors(timm_convnext())


MADE: dict[str, tuple[Callable[[], nn.Module], NetConfig, Library]] = {
    "timm ResNet": (timm_resnet, RESNET, "timm"),
    "timm ConvNeXt": (timm_convnext, CONVNEXT, "timm"),
    "torchvision ResNet": (torchvision_resnet, RESNET, "torchvision"),
    "torchvision ConvNeXt": (torchvision_convnext, CONVNEXT, "torchvision"),
    "the authors' ConvNeXt": (official_convnext, CONVNEXT, "official"),
    "transformers ResNet": (transformers_resnet, RESNET, "transformers"),
    "transformers narrow ResNet": (partial(transformers_resnet, WIDTHS), NARROW_RESNET, "transformers"),
    "transformers ConvNeXt": (transformers_convnext, CONVNEXT, "transformers"),
}


def ours(net: NetConfig) -> nn.Module:
    return build_model(net, num_classes=CLASSES)


@pytest.mark.parametrize(("make", "net", "library"), MADE.values(), ids=MADE)
def test_weights_of_a_library_give_the_same_logits_here_and_go_back_unchanged(
    make: Callable[[], nn.Module], net: NetConfig, library: Library
) -> None:
    theirs = make()
    weights = random_weights(theirs.state_dict())
    expected, taken = logits(theirs, weights), under_our_names(weights, net)
    assert expected.std() > 0.05  # or agreement would say nothing
    torch.testing.assert_close(logits(ours(net), taken), expected, atol=1e-5, rtol=0)
    back = to_library(taken, net, library)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("make", "net", "library"), MADE.values(), ids=MADE)
def test_what_was_trained_here_gives_the_same_logits_in_a_librarys_own_network(
    make: Callable[[], nn.Module], net: NetConfig, library: Library
) -> None:
    here = LAST_RUNG if net is CONVNEXT else net
    weights = random_weights(ours(here).state_dict())
    there = (
        to_library(*with_layer_scale(weights, here), library) if net is CONVNEXT else to_library(weights, here, library)
    )
    torch.testing.assert_close(logits(make(), there), logits(ours(here), weights), atol=1e-5, rtol=0)
    again = under_our_names(there, here)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


@pytest.mark.parametrize("net", [CONVNEXT, LAST_RUNG, ISOTROPIC], ids=["with", "without", "isotropic"])
def test_the_authors_weights_come_with_and_without_layer_scale(net: NetConfig) -> None:
    weights = random_weights(ours(net).state_dict())
    there = to_library(weights, net, "official")
    assert any(name.endswith("gamma") for name in there) == (net is CONVNEXT)
    back = under_our_names(there, net)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    if net is ISOTROPIC:
        assert {"stem.weight", "blocks.1.dwconv.weight", "norm.weight", "head.weight"} <= there.keys()


def test_a_resnet_file_of_old_without_counts_of_batches_is_whole() -> None:
    weights = random_weights(torchvision_resnet().state_dict())
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    taken = under_our_names(old, RESNET)
    torch.testing.assert_close(logits(ours(RESNET), taken), logits(torchvision_resnet(), weights), atol=1e-5, rtol=0)


@pytest.mark.parametrize("naming", NAMINGS, ids=[f"{naming.library} {naming.kind}" for naming in NAMINGS])
def test_weights_of_one_end_of_the_ladder_are_refused_at_the_other(naming: Naming) -> None:
    net = {"ResNet": RESNET, "ConvNeXt": CONVNEXT, "isotropic ConvNeXt": ISOTROPIC}[naming.kind]
    other = LAST_RUNG if net is RESNET else RESNET
    weights = to_library(ours(net).state_dict(), net, naming.library)
    with pytest.raises(UserError, match=rf"^there\.pth: have .* names of {naming}, but the network is none"):
        under_our_names(weights, other, "there.pth")


def test_what_is_missing_and_what_is_too_many_is_named_with_the_file() -> None:
    weights = to_library(ours(CONVNEXT).state_dict(), CONVNEXT, "official")
    weights["stages.0.7.dwconv.weight"] = weights.pop("stages.0.0.dwconv.bias")
    expected = (
        r"^there\.pth: not those of this network: 1 \(stages\.0\.0\.dwconv\.bias\) missing, "
        r"1 \(stages\.0\.7\.dwconv\.weight\) too many"
    )
    with pytest.raises(UserError, match=expected):
        under_our_names(weights, CONVNEXT, "there.pth")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_rung_between_the_ends_has_no_counterpart_anywhere(library: Library) -> None:
    net = replace(BASES["resnet50"], stem="patchify")
    with pytest.raises(UserError, match=f"{library} has no counterpart of it: .*from a.* it differs in "):
        to_library(ours(net).state_dict(), net, library)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_narrow_resnets_exist_in_transformers_alone(library: Library) -> None:
    with pytest.raises(UserError, match="from a ResNet it differs in widths"):
        to_library({}, NARROW_RESNET, library)
