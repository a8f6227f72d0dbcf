"""Layers of a user's own at every place where they can stand."""

import copy
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roadmap import build_model, count_macs, load_model, own_layer
from roadmap.common.errors import UserError
from roadmap.common.fields import diff, flatten, hashed_fields
from roadmap.export.safetensors_files import export_study
from roadmap.jobs.launcher import prepare
from roadmap.networks.config import BlockConfig, NetConfig, change_blocks, scale_down
from roadmap.networks.convert import under_our_names
from roadmap.networks.cost import fit_width
from roadmap.networks.model import Network
from roadmap.networks.own_layers import SIZES, check_trust, import_code, load_module, make_layer
from roadmap.runs.config import RunConfig
from roadmap.study.initial_weights import check_weights, find_weights
from roadmap.training.loop import train
from tests.export.test_safetensors_files import study_of

PARTS = """\
import torch
from torch import nn


class Resize(nn.Conv2d):
    def __init__(self, in_width, width, stride, kernel=3):
        super().__init__(in_width, width, kernel, stride, padding=kernel // 2)


class Gate(nn.Module):
    def __init__(self, width, start=1.0):
        super().__init__()
        self.start, self.gate = start, nn.Parameter(torch.ones(width, 1, 1))

    def init_weights(self):
        self.gate.fill_(self.start)

    def no_weight_decay(self):
        return {"gate"}

    def forward(self, x):
        return self.gate * x


class Highest(nn.AdaptiveMaxPool2d):
    def __init__(self, width):
        super().__init__(1)


class Cosine(nn.Module):
    def __init__(self, width, num_classes, scale=10.0):
        super().__init__()
        self.scale, self.classes = scale, nn.Linear(width, num_classes, bias=False)

    def forward(self, x):
        normalise = nn.functional.normalize
        return self.scale * nn.functional.linear(normalise(x), normalise(self.classes.weight))


class Broken(nn.Module):
    def __init__(self, *sizes):
        super().__init__()

    def forward(self, x):
        return x @ x.new_ones(7, 3, 3)


class Wrong(nn.Module):
    def __init__(self, *sizes):
        super().__init__()

    def forward(self, x):
        return x[:, :1]


class Pair(nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        return x, x


class Unbuildable(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.half = nn.Linear(width // 0, 3)
"""
IMAGES = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
PLAIN = NetConfig(depths=(1, 2, 1), widths=(4, 8, 8), stem_stride=2)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[ModuleType]:
    """The file of layers, imported as jobs import it."""
    path = tmp_path / "my_parts.py"
    path.write_text(PARTS)
    yield load_module(path)
    sys.modules.pop("my_parts", None)


def with_layer(slot: str, layer: Any, net: NetConfig = PLAIN, **args: Any) -> NetConfig:
    """Return a network that has an own layer where its slot says."""
    own = own_layer(slot, layer, **args)
    if slot in ("stem", "downsample", "pool", "head"):
        return replace(net, **{slot: own})
    fields = {"projection": "shortcut", "shortcut": "shortcut", "spatial_conv": "spatial_conv"}
    if slot in fields:
        return change_blocks(net, lambda block: replace(block, **{fields[slot]: own}))
    return change_blocks(net, lambda block: replace(block, layers_after=(*block.layers_after, own)))


def layer_for(parts: ModuleType, slot: str) -> Any:
    """Return a class that can stand there."""
    return {"pool": parts.Highest, "head": parts.Cosine}.get(
        slot, parts.Gate if SIZES[slot] == ("width",) else parts.Resize
    )


@pytest.fixture
def everywhere(parts: ModuleType) -> NetConfig:
    """A network with an own layer at every place, whose last stage has another block."""
    net = replace(PLAIN, boundary_norms=False)
    for slot in (slot for slot in SIZES if slot != "projection"):
        net = with_layer(slot, layer_for(parts, slot), net)
    return change_blocks(
        net, lambda block: replace(block, shortcut=own_layer("projection", parts.Resize, kernel=1), act="gelu"), [-1]
    )


def torchs_macs(net: NetConfig) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        build_model(net).eval()(torch.empty(1, 3, 64, 64))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("slot", SIZES)
def test_a_network_with_an_own_layer_is_built_counted_named_and_read_back(slot: str, parts: ModuleType) -> None:
    net = with_layer(slot, layer_for(parts, slot))
    model = build_model(net, num_classes=10, in_channels=1)
    assert model(IMAGES).shape == (2, 10)
    assert count_macs(net, 64) == torchs_macs(net)
    assert any(type(module).__module__ == "my_parts" for module in model.modules())
    said = json.dumps(hashed_fields(net))
    assert hashlib.sha256(PARTS.encode()).hexdigest()[:12] in said
    assert "my_parts.py" not in said
    assert [layer.slot for layer in net.own_layers] == [slot]
    assert diff(PLAIN, net).keys() <= flatten(net).keys()


def test_a_run_keeps_what_its_network_is_made_of(
    everywhere: NetConfig, tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny_run(net=everywhere)
    read = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert (read, read.id) == (config, config.id)
    sys.modules.pop("my_parts")
    import_code(read.net)
    assert hasattr(sys.modules["my_parts"], "Gate")
    sys.modules.pop("my_parts")
    with pytest.raises(UserError, match=r"layer 'Resize': comes from the Python file .*my_parts\.py"):
        check_trust(read.net)


def test_arguments_are_part_of_a_runs_name_and_reach_the_class(parts: ModuleType) -> None:
    one, other = (with_layer("head", parts.Cosine, scale=scale) for scale in (10.0, 20.0))
    assert hashed_fields(one) != hashed_fields(other)
    assert build_model(other).head.scale == 20.0
    assert repr(other.head) == "Cosine(scale=20.0)"
    assert repr(own_layer("spatial", parts.Gate)) == "Gate after spatial"


@pytest.mark.parametrize(
    ("slot", "name", "args", "words"),
    [
        ("stme", "Resize", {}, ["layer 'Resize': unknown slot 'stme'", "Did you mean 'stem'?"]),
        ("stem", "Gate", {}, ["cannot be called as Gate(in_width, width, stride)", "Give its __init__ these"]),
        ("head", "Cosine", {"scael": 1.0}, ["Cosine(width, num_classes, scael=1.0)", "'scael'"]),
        ("head", "Cosine", {"scale": [1.0]}, ["argument scale is [1.0]", "must be a number"]),
    ],
)
def test_a_layer_that_cannot_be_made_so_is_refused_at_once(
    parts: ModuleType, slot: str, name: str, args: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        own_layer(slot, getattr(parts, name), **args)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_layer_in_the_field_of_another_place_is_refused_with_the_right_slot(parts: ModuleType) -> None:
    own = own_layer("downsample", parts.Resize)
    with pytest.raises(UserError, match=r"network: layer 'Resize' in stem: unknown slot 'downsample'.* Known: stem"):
        replace(PLAIN, stem=own)
    with pytest.raises(UserError, match=r"layer 'Resize' in shortcut: unknown slot .* Known: shortcut, projection"):
        BlockConfig(shortcut=own)
    with pytest.raises(UserError, match="in spatial_conv: unknown slot 'downsample'"):
        BlockConfig(spatial_conv=own)
    with pytest.raises(UserError, match=r"stem_stride is 0, but must be a whole number from 1 up"):
        replace(PLAIN, stem=own_layer("stem", parts.Resize), stem_stride=0)


@pytest.mark.parametrize("slot", SIZES)
def test_a_layer_that_gives_another_shape_is_named_with_what_it_should_give(slot: str, parts: ModuleType) -> None:
    with pytest.raises(UserError, match=rf"layer 'Wrong' \({slot}\): maps \(1, .*\) to \(1, 1.*but must map it to"):
        count_macs(with_layer(slot, parts.Wrong), 64)


def test_what_fails_inside_a_layer_is_said_with_its_file_and_line(parts: ModuleType) -> None:
    line = PARTS.splitlines().index("        return x @ x.new_ones(7, 3, 3)") + 1
    with pytest.raises(UserError, match=rf"layer 'Broken' \(my_parts\.py, line {line}\): RuntimeError: .* Mend it"):
        count_macs(with_layer("spatial", parts.Broken), 64)
    with pytest.raises(UserError, match=r"layer 'Unbuildable' \(my_parts\.py, line \d+\): ZeroDivisionError"):
        make_layer(own_layer("pool", parts.Unbuildable), 4)
    with pytest.raises(UserError, match=r"layer 'Pair' .* to tuple, but must"):
        count_macs(with_layer("spatial", parts.Pair), 64)


def test_strides_may_round_up_or_down_where_nothing_is_added(parts: ModuleType) -> None:
    net = with_layer("downsample", parts.Resize)  # padded, so it rounds up
    assert build_model(net)(torch.zeros(2, 3, 46, 46)).shape == (2, 1000)


def test_a_shortcut_stands_in_every_block_and_a_projection_where_the_shape_changes(parts: ModuleType) -> None:
    for slot, expected in (("shortcut", 4), ("projection", 3)):
        model = build_model(with_layer(slot, parts.Resize), drop_path=0.5)
        blocks = [block for stage in model.stages for block in stage]
        assert sum(isinstance(block.shortcut, parts.Resize) for block in blocks) == expected
        assert all(block.adds for block in blocks)


def test_its_first_weights_are_the_recipes_or_its_own(parts: ModuleType) -> None:
    net = with_layer("spatial", parts.Gate, with_layer("stem", parts.Resize), start=0.25)
    model = build_model(net)
    assert (model.stages[0][0].residual.spatial_Gate.gate == 0.25).all()
    assert 0.01 < model.stem.Resize.weight.std() < 0.03
    assert not model.stem.Resize.bias.any()


def test_weight_decay_and_layer_wise_rates_reach_own_layers_as_they_should(everywhere: NetConfig) -> None:
    model = build_model(everywhere, num_classes=10)
    groups = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.5, layer_decay=0.5).param_groups
    found = {id(p): (group["weight_decay"], group["lr_scale"]) for group in groups for p in group["params"]}
    named = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    assert {decay for name, (decay, _) in named.items() if name.endswith((".gate", ".bias"))} == {0.0}
    assert named["stem.Resize.weight"] == (0.5, 0.5**4)
    assert named["stages.1.downsample.Resize.weight"] == named["stages.1.0.shortcut.weight"] == (0.5, 0.5**2)
    assert named["head.classes.weight"] == (0.5, 1.0)


def test_a_proxy_divides_its_widths_and_strides_and_widths_can_be_fitted(everywhere: NetConfig) -> None:
    net = replace(everywhere, widths=(16, 32, 32), stem_stride=16)
    small = scale_down(net, width_divisor=4, stem_stride=2)
    assert (small.widths, small.stem_stride) == ((4, 8, 8), 8)
    assert small.own_layers == net.own_layers
    assert build_model(small)(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    fitted = fit_width(everywhere, count_macs(net))
    assert count_macs(fitted) == pytest.approx(count_macs(net), rel=0.1)


def test_features_of_every_stage_have_the_sizes_that_are_said(everywhere: NetConfig) -> None:
    model = build_model(everywhere)
    _, outputs = model.forward_intermediates(torch.zeros(1, 3, 64, 64))
    sizes = [(64 // output.shape[-1], output.shape[1]) for output in outputs]
    assert sizes == [(info["reduction"], info["num_chs"]) for info in model.feature_info]
    assert model.forward_head(outputs[-1], pre_logits=True).shape == (1, model.head_hidden_size)
    model.reset_classifier(5)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    model.reset_classifier(0, "")
    assert model(torch.zeros(1, 3, 64, 64)).shape == outputs[-1].shape


def test_copies_and_compiled_networks_compute_the_same(everywhere: NetConfig) -> None:
    model = build_model(everywhere, in_channels=1).eval()
    expected = model(IMAGES)
    assert torch.equal(copy.deepcopy(model)(IMAGES), expected)
    torch.testing.assert_close(torch.export.export(model, (IMAGES,)).module()(IMAGES), expected)
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(IMAGES), expected)


def test_a_run_with_own_layers_everywhere_trains_leaves_and_starts_others(
    everywhere: NetConfig, small_images: Path, tmp_path: Path
) -> None:
    study = study_of(tmp_path, small_images, ["baseline"], epochs=1)
    ((key, config),) = study.configs.items()
    study.configs[key] = replace(config, net=everywhere)
    (run,) = prepare(study.planned())
    train(run.config, run.folder, data_root=small_images)
    ((folder,), _) = export_study(study, tmp_path / "exported", small_images)

    weights = find_weights(str(folder / "model.safetensors"), "baseline", 0)
    check_weights(RunConfig(everywhere, run.config.recipe, run.config.data, 1, weights))
    sys.modules.pop("my_parts")
    with pytest.raises(UserError, match="trust_code=True"):
        load_model(folder)
    model = load_model(folder, trust_code=True)
    assert isinstance(model, Network)
    assert model(IMAGES).shape == (2, 10)
    other = load_model(folder, trust_code=True, num_classes=5)
    assert other(IMAGES).shape == (2, 5)
    assert torch.equal(other.stem.Resize.weight, model.stem.Resize.weight)
    backbone = load_model(folder, trust_code=True, features_only=True)
    assert [map.shape[1] for map in backbone(IMAGES)] == backbone.feature_info.channels()


def test_weights_of_unknown_names_are_matched_by_their_shapes(parts: ModuleType) -> None:
    net = with_layer("stem", parts.Resize)
    model = build_model(net)
    order = [name for name, _ in model.stages[0][0].residual.named_children()]
    renamed = {
        re.sub(r"residual\.(\w+)", lambda found: f"branch.{order.index(found[1])}", name): tensor
        for name, tensor in model.state_dict().items()
    }
    found = under_our_names(renamed, net)
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_a_function_can_make_the_layer(parts: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(
        PARTS + "\n\ndef either(in_width, width, stride):\n    return Resize(in_width, width, stride)\n"
    )
    made = load_module(tmp_path / "my_parts.py")
    assert isinstance(build_model(with_layer("stem", made.either)).stem.either, nn.Conv2d)
