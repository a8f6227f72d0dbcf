import math
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roadmap import build_model, count_macs, count_params, read_ladder
from roadmap.networks.blocks import Block
from roadmap.networks.config import Init, NetConfig, scale_down
from roadmap.networks.families import BASES, convnext
from roadmap.networks.model import Network
from tests.samples import climbed_nets, nets

RUNGS = {rung.id: rung.net for rung in read_ladder().climb("resnet50")}
SMALL = {
    "first": replace(scale_down(BASES["resnet50"], width_divisor=8, stem_stride=2), depths=(1, 2, 1, 1)),
    "last": replace(scale_down(convnext("tiny"), width_divisor=8, stem_stride=2), depths=(1, 2, 1, 1)),
}


def drop_path_rates(model: nn.Module) -> list[float]:
    return [getattr(m.drop_path, "rate", 0.0) for m in model.modules() if isinstance(m, Block)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(net=climbed_nets() | nets(), image_size=st.integers(32, 40))
def test_whatever_is_legal_builds_and_trains_and_is_counted_as_torch_counts_it(net: NetConfig, image_size: int) -> None:
    model = build_model(net, num_classes=10, drop_path=0.1)
    loss = nn.functional.cross_entropy(model(torch.randn(2, 3, image_size, image_size)), torch.tensor([3, 7]))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter, torch.no_grad():
        build_model(net, num_classes=10).eval()(torch.empty(1, 3, image_size, image_size))
    assert 2 * count_macs(net, image_size, num_classes=10) == counter.get_total_flops()


@pytest.mark.parametrize("net", RUNGS.values(), ids=RUNGS)
def test_logits_come_one_a_class_for_images_of_any_number_of_channels(net: NetConfig) -> None:
    small = replace(scale_down(net, width_divisor=16, stem_stride=2), depths=(1, 1, 1, 1))
    model = build_model(small, num_classes=7, in_channels=1).eval()
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(("stem", "stride"), [("resnet", 2), ("resnet", 4), ("patchify", 2), ("patchify", 4)])
@pytest.mark.parametrize("downsample", ["in_block", "separate"])
def test_the_total_stride_is_what_the_stages_divide_the_image_by(stem: str, stride: int, downsample: str) -> None:
    net = replace(SMALL["first"], stem=stem, stem_stride=stride, downsample=downsample)
    model = build_model(net).eval()
    pixels = model.stages(model.stem(torch.zeros(1, 3, 64, 64))).shape[-1]
    assert pixels == 64 // net.total_stride


@pytest.mark.parametrize("net", SMALL.values(), ids=SMALL)
def test_channels_last_images_give_the_same_logits(net: NetConfig) -> None:
    model, images = build_model(net).eval(), torch.randn(2, 3, 32, 32)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("net", [BASES["resnet50"], convnext("tiny")], ids=["first", "last"])
def test_weights_start_as_a_truncated_normal_biases_at_0_norms_at_1_and_0(net: NetConfig) -> None:
    torch.manual_seed(0)
    model = build_model(replace(net, depths=(1, 1, 1, 1)))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(0.02, rel=4 / math.sqrt(2 * n))  # 4 standard errors
            assert module.weight.mean().item() == pytest.approx(0, abs=0.02 * 4 / math.sqrt(n))
            if module.bias is not None:
                assert not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()


def test_without_norms_convolutions_start_at_the_scale_that_keeps_the_signal() -> None:
    torch.manual_seed(0)
    model = build_model(scale_down(BASES["vgg16"], width_divisor=4, stem_stride=4)).eval()
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * conv.out_channels)), rel=0.1)
    assert 0.01 < model.forward_features(torch.randn(4, 3, 32, 32)).std() < 10


def theirs(base: str) -> nn.Module:
    """Return timm's model, of VGG-16 what is left with a pooled linear head."""
    if base == "mobilenet_v2":
        return timm.create_model("mobilenetv2_100").eval()
    features = timm.create_model("vgg16").features[:-1]  # without the pool before the fully connected layers
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)).eval()


@pytest.mark.parametrize("base", ["vgg16", "mobilenet_v2"])
def test_other_bases_compute_what_timms_models_do_with_the_same_weights(base: str) -> None:
    torch.manual_seed(0)
    model, reference, images = build_model(BASES[base]).eval(), theirs(base), torch.randn(1, 3, 64, 64)
    for mine, its in zip(model.state_dict().values(), reference.state_dict().values(), strict=True):
        mine.copy_(its)  # both list their layers in the order in which they run
    torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(base)(torch.empty(1, 3, 224, 224))
    assert 2 * count_macs(BASES[base]) == counter.get_total_flops()
    assert count_params(BASES[base]) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize(
    ("size", "params", "gmacs"),
    [("isotropic_small", 22, 4.3), ("isotropic_base", 87, 16.9), ("isotropic_large", 306, 59.7)],
)
def test_isotropic_convnexts_cost_what_table_2_prints(size: str, params: float, gmacs: float) -> None:
    net = convnext(size)
    assert (round(count_params(net) / 1e6), round(count_macs(net) / 1e9, 1)) == (params, gmacs)
    assert (net.total_stride, len(net.depths)) == (16, 1)


@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_stochastic_depth_leaves_a_block_without_a_shortcut_alone(shortcut: str) -> None:
    net = NetConfig(depths=(2,), widths=(4,), block=replace(BASES["vgg16"].block, shortcut=shortcut, residual_ratio=2))
    rates = drop_path_rates(build_model(net, drop_path=1.0))
    assert rates == ([0.0, 0.0] if shortcut == "none" else [0.0, 1.0])


def test_a_block_computes_its_shortcut_first_on_which_the_numbers_of_runs_hang() -> None:
    block, order = build_model(SMALL["first"]).stages[1][0], []
    for part in (block.residual, block.shortcut):
        part.register_forward_hook(lambda module, *_: order.append(module))
    block(torch.randn(2, block.residual.pointwise1.in_channels, 8, 8))
    assert order == [block.shortcut, block.residual]


def test_layer_scale_starts_at_its_value() -> None:
    gammas = [p for name, p in build_model(SMALL["last"]).named_parameters() if name.endswith("gamma")]
    assert len(gammas) == sum(SMALL["last"].depths)
    assert all((gamma == 1e-6).all() for gamma in gammas)


def test_layer_norm_has_the_papers_eps() -> None:
    assert {m.eps for m in build_model(SMALL["last"]).modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_model(SMALL["last"]).state_dict())
    first, again, other = models
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def stds_by_shape(model: nn.Module) -> dict[tuple[int, ...], float]:
    """Return the standard deviation over all weights of a shape, of convolutions and linear layers of some size."""
    weights = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    shapes = {tuple(weight.shape) for weight in weights if weight.numel() >= 2000}
    return {s: torch.cat([w.flatten() for w in weights if w.shape == s]).std().item() for s in shapes}


@pytest.mark.parametrize("init", ["kaiming", "pytorch"])
def test_a_resnet_starts_as_torchvisions_or_as_pytorch_leaves_it_but_for_the_head(init: Init) -> None:
    torch.manual_seed(0)
    ours = build_model(replace(BASES["resnet50"], depths=(1, 1, 1, 1)), init=init)
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1])
    if init == "pytorch":
        for module in theirs.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
        nn.init.trunc_normal_(theirs.fc.weight, std=0.02)
    else:
        assert ours.head.bias.abs().max() > 0  # PyTorch's own
    expected = stds_by_shape(theirs)
    assert len(expected) > 10
    assert stds_by_shape(ours) == pytest.approx(expected, rel=0.05)


def test_pytorchs_own_weights_are_those_that_its_layers_are_made_with() -> None:
    torch.manual_seed(0)
    plain = Network(SMALL["last"], num_classes=10, in_channels=3, drop_path=0.0).state_dict()
    torch.manual_seed(0)
    ours = build_model(SMALL["last"], num_classes=10, init="pytorch").state_dict()
    assert [name for name in plain if not torch.equal(plain[name], ours[name])] == ["head.weight", "head.bias"]
    assert ours["head.weight"].std().item() == pytest.approx(0.02, rel=0.1)


def test_isotropic_convnexts_have_layer_scale_where_the_authors_trained_them_with_it() -> None:
    scales = [convnext(f"isotropic_{size}").block.layer_scale for size in ("small", "base", "large")]
    assert scales == [None, None, 1e-6]
    assert convnext("isotropic_large", layer_scale=None).block.layer_scale is None


def test_drop_path_grows_linearly_from_0_to_the_given_rate_as_in_timm() -> None:
    net = replace(SMALL["last"], depths=(3, 3, 9, 3))
    rates = drop_path_rates(build_model(net, drop_path=0.4))
    assert rates == pytest.approx([0.4 * block / 17 for block in range(18)])
    theirs = timm.models.ConvNeXt(depths=net.depths, dims=net.widths, drop_path_rate=0.4)
    assert rates == pytest.approx([getattr(b.drop_path, "drop_prob", 0.0) for s in theirs.stages for b in s.blocks])


def test_drop_path_drops_residual_branches_in_training_alone() -> None:
    model, images = build_model(SMALL["first"], drop_path=0.5), torch.randn(2, 3, 32, 32)
    nn.init.ones_(model.head.weight)
    model.eval()
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_without_drop_path_no_block_has_any() -> None:
    assert drop_path_rates(build_model(SMALL["first"])) == [0.0] * sum(SMALL["first"].depths)


def test_a_network_of_one_block_can_have_drop_path() -> None:
    net = replace(SMALL["last"], depths=(1,), widths=(8,))
    assert drop_path_rates(build_model(net, drop_path=0.4)) == [0.0]


def test_only_layer_norm_gives_convolutions_in_blocks_biases_and_shortcuts_never_have_them() -> None:
    for rung, biased in {"fewer_norms": False, "layer_norm": True}.items():
        block = build_model(replace(RUNGS[rung], depths=(1, 1, 1, 1))).stages[1][0]
        assert [m.bias is not None for m in block.residual if isinstance(m, nn.Conv2d)] == [biased] * 3
        assert block.shortcut.conv.bias is None
