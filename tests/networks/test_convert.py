from collections.abc import Mapping
from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, nn

from roadmap import build_model, read_ladder
from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import from_timm, is_ours, to_timm, under_our_names
from roadmap.networks.families import BASES, convnext

LADDER = read_ladder()
SHALLOW = {
    "resnet": NetConfig(depths=(1, 2, 1, 1)),
    "convnext": replace(convnext("tiny"), depths=(1, 2, 1, 1), widths=(8, 16, 24, 32)),
    "convnext without layer scale": replace(
        convnext("tiny", layer_scale=None), depths=(1, 2, 1, 1), widths=(8, 16, 24, 32)
    ),
}


def timm_model(name: str, *, layer_scale: bool = True) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name)
    if not layer_scale:  # create_model drops options that are None, so ls_init_value=None would not arrive
        for module in model.modules():
            if isinstance(module, timm.models.convnext.ConvNeXtBlock):
                module.gamma = None
    return model.eval()


def random_weights(names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights that leave no tensor idle: norms and scales away from their start, signals of about unit size."""
    torch.manual_seed(0)
    weights = {}
    for name, old in names.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            weights[name] = torch.empty(old.shape).uniform_(0.5, 1.5)
        elif old.ndim == 1 and name.endswith(("weight", "gamma")):
            weights[name] = torch.empty(old.shape).uniform_(0.3, 0.9)
        elif old.ndim == 1:
            weights[name] = torch.empty(old.shape).normal_(std=0.1)
        else:
            weights[name] = torch.empty(old.shape).normal_(std=old[0].numel() ** -0.5)
    return weights


def logits(model: nn.Module, weights: Mapping[str, Tensor]) -> Tensor:
    model.load_state_dict(weights, assign=True)  # fills a model on the meta device without initialising it first
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out: Tensor = model.eval()(images)
    return out


def ours(net: NetConfig) -> nn.Module:
    with torch.device("meta"):
        return build_model(net)


def climb(base: str, rung: str) -> NetConfig:
    return next(step.net for step in LADDER.climb(base) if step.id == rung)


@pytest.mark.parametrize(
    ("net", "name", "layer_scale"),
    [
        (climb("resnet50", "baseline"), "resnet50", False),
        (climb("resnet200", "baseline"), "resnet200", False),
        (climb("resnet50", "separate_downsampling"), "convnext_tiny", False),
        (climb("resnet200", "separate_downsampling"), "convnext_base", False),
        (convnext("tiny"), "convnext_tiny", True),
    ],
    ids=["resnet50", "resnet200", "last rung of 50", "last rung of 200", "convnext_tiny as published"],
)
def test_the_same_weights_give_the_same_logits_as_in_timm(net: NetConfig, name: str, layer_scale: bool) -> None:
    theirs = timm_model(name, layer_scale=layer_scale)
    weights = random_weights(theirs.state_dict())
    expected = logits(theirs, weights)
    found = logits(ours(net), from_timm(weights, net))
    assert expected.std() > 0.2  # or agreement would say nothing
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("net", SHALLOW.values(), ids=SHALLOW)
def test_there_and_back_loses_nothing(net: NetConfig) -> None:
    weights = random_weights(ours(net).state_dict())
    back = from_timm(to_timm(weights, net), net)
    assert list(back) == list(weights)
    for name, tensor in weights.items():
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize(
    ("net", "name", "layer_scale"),
    [
        (BASES["resnet50"], "resnet50", False),
        (convnext("tiny"), "convnext_tiny", True),
        (convnext("small", layer_scale=None), "convnext_small", False),
    ],
    ids=["resnet50", "convnext_tiny", "convnext_small without layer scale"],
)
def test_back_and_there_loses_nothing(net: NetConfig, name: str, layer_scale: bool) -> None:
    theirs = timm_model(name, layer_scale=layer_scale).state_dict()
    back = to_timm(from_timm(theirs, net), net)
    assert {key: tensor.shape for key, tensor in back.items()} == {key: t.shape for key, t in theirs.items()}


def test_our_weights_load_into_timm() -> None:
    net = SHALLOW["convnext"]
    model = build_model(net, num_classes=10, in_channels=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    theirs = timm.models.ConvNeXt(in_chans=1, num_classes=10, depths=net.depths, dims=net.widths).eval()
    theirs.load_state_dict(to_timm(model.state_dict(), net))
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(theirs(images), model(images), atol=1e-5, rtol=1e-5)


def timm_weights(net: NetConfig) -> dict[str, Tensor]:
    theirs = timm.models.ConvNeXt(depths=net.depths, dims=net.widths, ls_init_value=net.block.layer_scale)
    return random_weights(theirs.state_dict())


def test_a_convnext_with_layer_scale_gives_the_same_logits_without_it() -> None:
    scaled, plain = SHALLOW["convnext"], SHALLOW["convnext without layer scale"]
    weights = timm_weights(scaled)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    expected = logits(timm.models.ConvNeXt(depths=scaled.depths, dims=scaled.widths), weights)
    found = logits(ours(plain), from_timm(weights, plain))
    assert expected.std() > 0.2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert all(torch.equal(weights[name], before[name]) for name in before)  # what was given is left as it was


@pytest.mark.parametrize("net", SHALLOW.values(), ids=SHALLOW)
def test_a_state_dict_shows_whose_names_it_has(net: NetConfig) -> None:
    weights = ours(net).state_dict()
    assert is_ours(weights)
    assert not is_ours(to_timm(weights, net))


@pytest.mark.parametrize("strange", [{}, {"encoder.layers.0.weight": torch.zeros(1)}], ids=["nothing", "other names"])
def test_a_state_dict_of_something_else_is_refused(strange: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match=r"^there\.pth: names like .* are unknown, and no tensors are numbered like"):
        under_our_names(strange, BASES["resnet50"], "there.pth")


@pytest.mark.parametrize("rung", [rung.id for rung in LADDER.climb("resnet50")[2:-1]])
def test_a_network_between_the_two_is_refused_in_words(rung: str) -> None:
    net = climb("resnet50", rung)
    if rung == "stage_ratio":  # is a ResNet still
        assert from_timm(to_timm(ours(net).state_dict(), net), net)
        return
    for convert in (to_timm, from_timm):
        with pytest.raises(UserError, match=r"ResNet.*differs in "):
            convert({}, net)


@pytest.mark.parametrize(
    ("net", "differs"),
    [
        (climb("resnet50", "gelu"), "block.act_after, block.norm"),
        (replace(BASES["resnet50"], widths=(16, 32, 64, 128)), "widths"),
        (replace(convnext("tiny"), stem_stride=2), "from a ConvNeXt it differs in stem_stride"),
        (
            replace(convnext("tiny"), depths=(3, 3, 9), widths=(96, 192, 384)),
            "from a ConvNeXt it differs in depths, widths",
        ),
    ],
    ids=["gelu", "narrow ResNet", "stride of 2", "three stages"],
)
def test_the_refusal_names_what_differs(net: NetConfig, differs: str) -> None:
    with pytest.raises(UserError, match=differs):
        to_timm({}, net)


def test_weights_of_another_network_are_refused_with_the_names_that_differ() -> None:
    scaled, plain = SHALLOW["convnext"], SHALLOW["convnext without layer scale"]
    with pytest.raises(
        UserError, match=r"5 \(stages.0.blocks.0.gamma, stages.1.blocks.0.gamma, ...\) missing, none too many"
    ):
        from_timm(to_timm(ours(plain).state_dict(), plain), scaled)
    without_mlp = {name: tensor for name, tensor in timm_weights(scaled).items() if "0.blocks.0.mlp.fc2" not in name}
    with pytest.raises(UserError, match=r"2 \(stages.0.blocks.0.mlp.fc2.weight, .*\) missing, none too many"):
        from_timm(without_mlp, plain)
    with pytest.raises(UserError, match=r"5 \(stages.0.0.residual.layer_scale.gamma, .*\) missing, none too many"):
        to_timm(ours(plain).state_dict(), scaled)
    with pytest.raises(UserError, match="direction"):
        from_timm(ours(scaled).state_dict(), scaled)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "xlarge"])
def test_the_family_has_the_parameters_of_timms(size: str) -> None:
    theirs = timm_model(f"convnext_{size}")
    assert sum(p.numel() for p in ours(convnext(size)).parameters()) == sum(p.numel() for p in theirs.parameters())


def test_convnext_tiny_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in ours(convnext("tiny")).parameters()) == 28_589_128
