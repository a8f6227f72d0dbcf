from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import ConvNeXt
from torch import nn

from roadmap import build_model, count_params, read_ladder
from roadmap.common.errors import UserError
from roadmap.export import timm_registry
from roadmap.export.timm_registry import register_ladder
from roadmap.networks.blocks import Block
from roadmap.networks.config import NetConfig, scale_down
from roadmap.networks.families import convnext
from tests.samples import LADDER

PAPER = read_ladder()
RUNGS = {rung.id: rung.net for rung in PAPER.climb("resnet50")}


def small(rung: str, *, stem_stride: int = 4) -> NetConfig:
    """Return a rung's network, narrow and shallow."""
    return replace(scale_down(RUNGS[rung], width_divisor=16, stem_stride=stem_stride), depths=(1, 2, 1, 1))


def create(rung: str, **options: Any) -> nn.Module:
    model: nn.Module = timm.create_model("roadmap_resnet50", net=small(rung), **options)
    return model


# -- names


@pytest.mark.parametrize("base", PAPER.bases)
def test_every_rung_is_a_tag_of_its_base_and_costs_what_the_rung_costs(base: str) -> None:
    assert timm.list_models(f"roadmap_{base}") == [f"roadmap_{base}"]
    rungs = PAPER.climb(base)
    names = [f"roadmap_{base}.{rung.id}" for rung in rungs]
    assert sorted(timm.list_models(f"roadmap_{base}.*", include_tags=True)) == sorted(names)
    for name, rung in zip(names, rungs, strict=True):
        with torch.device("meta"):
            model = timm.create_model(name)
        assert model.net == rung.net
        assert sum(parameter.numel() for parameter in model.parameters()) == count_params(rung.net)
        assert f"{model.pretrained_cfg['architecture']}.{model.pretrained_cfg['tag']}" == name


def test_a_name_without_a_tag_is_where_the_ladder_ends() -> None:
    with torch.device("meta"):
        assert timm.create_model("roadmap_resnet50").net == convnext("tiny", layer_scale=None)
        assert timm.create_model("roadmap_resnet200").net == convnext("base", layer_scale=None)
    assert timm.get_pretrained_cfg("roadmap_resnet50").tag == "separate_downsampling"


def test_an_unknown_rung_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"roadmap_resnet50: unknown rung 'gellu'\. Did you mean 'gelu'\?"):
        timm.create_model("roadmap_resnet50.gellu")


def test_a_ladder_of_ones_own_is_registered_under_its_prefix(tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text(LADDER.replace("args: {size: 5}", "args: {size: 5}\n    adopted: false"))
    ladder = read_ladder(tmp_path / "steps.yaml")
    assert register_ladder(ladder, "mine") == ["mine_resnet50", "mine_resnet200"]
    nets = {rung.id: rung.net for rung in ladder.climb("resnet200")}
    with torch.device("meta"):
        assert timm.create_model("mine_resnet200.big_kernel").net == nets["big_kernel"]
        assert timm.create_model("mine_resnet200").net == nets["widen"]  # big_kernel is a side branch
    assert timm_registry.__dict__["mine_resnet200"].__name__ in timm_registry.__all__
    with pytest.raises(UserError, match=r"prefix is 'my\.ladder'"):
        register_ladder(ladder, "my.ladder")


@pytest.mark.parametrize("net", [small("gelu"), asdict(small("gelu"))], ids=["NetConfig", "dict"])
def test_a_network_that_is_no_rung_can_be_given(net: NetConfig | dict[str, Any]) -> None:
    assert timm.create_model("roadmap_resnet50.gelu", net=net).net == small("gelu")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widhts": (8,)}, "roadmap_resnet50: net: unknown key 'widhts'. Did you mean 'widths'?"),
        ({"block": {"kernel_size": 4}}, "kernel_size is 4, but must be odd"),
        ({"depths": "many"}, "roadmap_resnet50: net: depths"),
    ],
)
def test_a_network_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        timm.create_model("roadmap_resnet50", net={"depths": (1, 1, 1, 1)} | wrong)
    assert message in str(refusal.value)


# -- what timm's models take


def test_classes_channels_and_rates_are_those_that_were_asked_for() -> None:
    model = create("gelu", num_classes=7, in_chans=1, drop_path_rate=0.3, drop_rate=0.5)
    assert model.eval()(torch.randn(2, 1, 40, 33)).shape == (2, 7)
    assert (model.num_classes, model.in_chans) == (7, 1)
    rates = [getattr(block.drop_path, "rate", 0.0) for block in model.modules() if isinstance(block, Block)]
    assert rates == pytest.approx([0.0, 0.075, 0.15, 0.225, 0.3][: len(rates)])
    assert len(rates) == 5
    features = torch.ones(2, model.num_features, 1, 1)
    zeros = (model.train().forward_head(features, pre_logits=True) == 0).float().mean()
    assert 0 < zeros < 1
    assert model.eval().forward_head(features, pre_logits=True).eq(1).all()


def test_images_are_wanted_as_timm_wants_imagenets() -> None:
    with torch.device("meta"):
        model = timm.create_model("roadmap_resnet50.baseline")
    wanted = resolve_data_config(model=model)
    assert wanted == resolve_data_config(pretrained_cfg={"interpolation": "bicubic", "crop_pct": 0.875})


@pytest.mark.parametrize("rung", RUNGS)
def test_a_backbone_gives_the_four_stages_at_strides_of_4_to_32(rung: str) -> None:
    torch.manual_seed(0)
    backbone = create(rung, features_only=True, in_chans=1).eval()
    torch.manual_seed(0)
    whole = create(rung, in_chans=1).eval()
    images = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        maps, expected = backbone(images), whole.stem(images)
        for stage, found in zip(whole.stages, maps, strict=True):
            expected = stage(expected)
            assert torch.equal(found, expected)
    assert [tuple(found.shape[2:]) for found in maps] == [(64 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    assert backbone.feature_info.channels() == [found.shape[1] for found in maps]
    assert backbone.feature_info.module_name() == [f"stages.{stage}" for stage in range(4)]


def test_a_backbone_gives_the_stages_that_were_asked_for_and_says_the_strides_of_a_proxy() -> None:
    backbone = timm.create_model(
        "roadmap_resnet50", net=small("layer_norm", stem_stride=2), features_only=True, out_indices=(1, 3)
    )
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert backbone.feature_info.reduction() == [4, 16]
    assert [found.shape[-1] for found in maps] == [16, 4]


# -- the interface of timm's models


@pytest.mark.parametrize("rung", ["baseline", "separate_downsampling"])
def test_the_parts_of_a_forward_pass_make_the_whole(rung: str) -> None:
    model, images = create(rung, num_classes=5).eval(), torch.randn(2, 3, 64, 64)
    features = model.forward_features(images)
    assert features.shape == (2, model.num_features, 2, 2)
    assert torch.equal(model.forward_head(features), model(images))
    pooled = model.forward_head(features, pre_logits=True)
    assert torch.equal(model.get_classifier()(pooled), model(images))
    without = create(rung, num_classes=0).eval()
    without.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
    assert torch.equal(without(images), pooled)


def test_a_new_head_has_the_new_classes_and_starts_as_the_first_did() -> None:
    model = create("gelu", num_classes=5).double()
    model.reset_classifier(3)
    assert model(torch.randn(2, 3, 32, 32).double()).shape == (2, 3)
    assert model.num_classes == 3
    assert not model.head.bias.any()
    assert 0.01 < model.head.weight.std() < 0.03
    model.reset_classifier(0, "avg")
    assert model(torch.randn(2, 3, 32, 32).double()).shape == (2, model.num_features)
    with pytest.raises(UserError, match="global_pool is 'max' with num_classes=3, but these networks average"):
        model.reset_classifier(3, "max")


@pytest.mark.parametrize("rung", ["baseline", "separate_downsampling"])
def test_without_pooling_the_map_comes_out_and_pools_to_the_same(rung: str) -> None:
    torch.manual_seed(0)
    pooled = create(rung, num_classes=0).eval()
    model = create(rung, num_classes=0, global_pool="").eval()
    model.load_state_dict(pooled.state_dict())
    images = torch.randn(2, 3, 64, 96)
    found = model(images)
    assert found.shape == (2, model.num_features, 2, 3)
    if rung == "baseline":  # the last rung's norm is not linear, so it does not commute with the mean
        torch.testing.assert_close(found.mean((2, 3)), pooled(images))
    with pytest.raises(UserError, match=r"global_pool is '' with num_classes=5, .* Use num_classes=0 with ''"):
        create(rung, num_classes=5, global_pool="")
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3)


@pytest.mark.parametrize("rung", ["baseline", "separate_downsampling"])
def test_the_outputs_of_stages_come_with_the_last_as_in_timm(rung: str) -> None:
    model, images = create(rung).eval(), torch.randn(1, 3, 64, 64)
    last, outputs = model.forward_intermediates(images)
    assert torch.equal(last, model.forward_features(images))
    assert [output.shape[1] for output in outputs] == [info["num_chs"] for info in model.feature_info]
    assert torch.equal(outputs[-1], last)
    assert all(torch.equal(a, b) for a, b in zip(model.forward_intermediates(images, 2)[1], outputs[2:], strict=True))
    stopped, first = model.forward_intermediates(images, [0, -3], stop_early=True)
    assert torch.equal(stopped, outputs[1])
    assert [len(first), len(model.forward_intermediates(images, [1], intermediates_only=True))] == [2, 1]
    for wrong, message in (
        ({"indices": [4]}, "no stage 4"),
        ({"indices": 5}, "no stage -5"),
        ({"output_fmt": "NLC"}, "NLC"),
    ):
        with pytest.raises(UserError, match=message):
            model.forward_intermediates(images, **wrong)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_network_can_be_traced_and_says_that_it_cannot_be_scripted() -> None:
    model, images = create("gelu").eval(), torch.randn(1, 3, 64, 64)
    with pytest.raises(UserError, match=r"cannot be scripted\. Use torch\.jit\.trace"):
        torch.jit.script(model)
    torch.testing.assert_close(torch.jit.trace(model, images)(images), model(images))


@pytest.mark.parametrize("rung", ["baseline", "separate_downsampling"])
def test_gradients_are_the_same_when_blocks_are_computed_twice(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda block, x: passes.append(block) or forward(block, x))
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = create(rung, drop_path_rate=0.3)
        model.set_grad_checkpointing(enable)
        passes.clear()
        model.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
        assert len(passes) == 5 * (1 + enable)
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(kept, computed) for kept, computed in zip(*gradients, strict=True))


# -- pretrained weights


def test_weights_of_a_rung_load_and_a_new_head_stays_as_it_is() -> None:
    source = create("gelu", num_classes=10)
    overlay = {"state_dict": source.state_dict(), "num_classes": 10}
    images = torch.randn(2, 3, 32, 32)
    loaded = create("gelu", num_classes=10, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(loaded.eval()(images), source.eval()(images))
    tuned = create("gelu", num_classes=4, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(tuned.eval().forward_features(images), source.forward_features(images))
    assert tuned(images).shape == (2, 4)


def test_the_weights_of_timms_convnext_load_into_the_last_rung() -> None:
    net = small("separate_downsampling")
    theirs = ConvNeXt(depths=net.depths, dims=net.widths, ls_init_value=0.5).eval()
    ours = create(
        "separate_downsampling", pretrained=True, pretrained_cfg_overlay={"state_dict": theirs.state_dict()}
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_weights_of_something_else_are_refused() -> None:
    strange = {"state_dict": {"encoder.weight": torch.zeros(1)}}
    with pytest.raises(UserError, match=r"weights: names like 'encoder\.weight' are unknown"):
        create("gelu", pretrained=True, pretrained_cfg_overlay=strange)


def test_a_registered_model_is_the_one_that_the_harness_builds() -> None:
    torch.manual_seed(0)
    registered = create("fewer_norms", num_classes=10).state_dict()
    torch.manual_seed(0)
    built = build_model(small("fewer_norms"), num_classes=10).state_dict()
    assert list(registered) == list(built)
    assert all(torch.equal(registered[name], built[name]) for name in built)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: timm.create_model("roadmap_resnet50", global_pool=""),
            r"global_pool is '' with num_classes=1000",
        ),
        (lambda: timm.create_model("roadmap_resnet50", global_pool="max"), "these networks average"),
        (lambda: timm.create_model("roadmap_resnet50", output_stride=8), r"output_stride: not for these networks"),
        (lambda: torch.jit.script(timm.create_model("roadmap_resnet50")), r"torch\.jit\.script: these networks cannot"),
    ],
)
def test_what_these_networks_do_not_do_they_say_in_words(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
