from dataclasses import replace

import pytest
import torch

from roadmap import build_model, count_activations, count_macs, count_params, read_ladder
from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig, scale_down
from roadmap.networks.families import BASES, convnext
from tests.golden_costs import GOLDEN, costs

LADDER = read_ladder()
RUNGS = {(base, rung.id): rung for base in LADDER.bases for rung in LADDER.climb(base)}


def shallow(net: NetConfig) -> NetConfig:
    return replace(net, depths=(1, 2, 1, 1))


@pytest.mark.parametrize(("base", "rung"), RUNGS)
def test_every_cell_of_both_tables_is_counted_to_the_printed_digits(base: str, rung: str) -> None:
    published = RUNGS[base, rung].paper.true_gmacs
    assert published is not None
    assert count_macs(RUNGS[base, rung].net) / 1e9 == pytest.approx(published, abs=0.006)


def test_only_the_two_errata_of_table_10_are_off_as_printed() -> None:
    off = [key for key, rung in RUNGS.items() if abs(count_macs(rung.net) / 1e9 - (rung.paper.gmacs or 0)) > 0.006]
    assert off == [("resnet50", "layer_norm"), ("resnet50", "separate_downsampling")]
    assert [key for key, rung in RUNGS.items() if rung.paper.erratum] == off


def test_costs_are_those_of_the_golden_file() -> None:
    assert costs().splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines(), (
        "The costs of the ladders have changed. If that is meant: python -m tests.golden_costs"
    )


@pytest.mark.parametrize(
    "rung", ["baseline", "depthwise_conv", "inverted_bottleneck", "layer_norm", "separate_downsampling"]
)
def test_fvcore_counts_the_same_in_convolutions_and_linear_layers(rung: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    net = shallow(scale_down(RUNGS["resnet50", rung].net, width_divisor=4, stem_stride=4))
    analysis = FlopCountAnalysis(build_model(net).eval(), torch.zeros(1, 3, 64, 64))
    analysis = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    assert count_macs(net, 64) == by_operator["conv"] + by_operator["linear"]
    assert set(by_operator) <= {"conv", "linear", "batch_norm", "layer_norm", "adaptive_avg_pool2d"}


@pytest.mark.parametrize("rung", ["baseline", "depthwise_conv", "inverted_bottleneck", "separate_downsampling"])
def test_fvcore_counts_the_same_activations_in_convolutions_and_linear_layers(rung: str) -> None:
    from fvcore.nn import ActivationCountAnalysis

    net = shallow(scale_down(RUNGS["resnet50", rung].net, width_divisor=4, stem_stride=4))
    analysis = ActivationCountAnalysis(build_model(net).eval(), torch.zeros(1, 3, 64, 64))
    analysis = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert count_activations(net, 64) == analysis.by_operator()["conv"] + analysis.by_operator()["linear"]


def test_resnet_50_has_the_activations_that_are_published() -> None:
    # Radosavovic et al. 2020, table of ResNe(X)t models: 11.1 M. torch's strides the 3x3 convolutions, as theirs does.
    assert count_activations(BASES["resnet50"]) / 1e6 == pytest.approx(11.1, abs=0.05)


def test_activations_are_the_outputs_of_layers_with_weights() -> None:
    net = shallow(scale_down(BASES["resnet50"], width_divisor=4, stem_stride=4))
    model = build_model(net, num_classes=7, in_channels=1).eval()
    outputs = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
    model(torch.zeros(1, 1, 64, 64))
    assert count_activations(net, 64, in_channels=1, num_classes=7) == sum(outputs)


def test_macs_grow_with_the_area_of_the_image_but_for_the_head() -> None:
    net = shallow(convnext("tiny"))
    head = net.widths[-1] * 1000
    assert count_macs(net, 64) - head == 4 * (count_macs(net, 32) - head)


def test_classes_and_image_channels_are_counted() -> None:
    net = shallow(BASES["resnet50"])
    assert count_params(net, num_classes=11) - count_params(net, num_classes=10) == 2048 + 1
    assert count_macs(net, 64, num_classes=11) - count_macs(net, 64, num_classes=10) == 2048
    assert count_params(net) - count_params(net, in_channels=1) == 2 * 64 * 7 * 7
    assert count_macs(net, 64) - count_macs(net, 64, in_channels=1) == 2 * 64 * 7 * 7 * 32 * 32


def test_norms_and_layer_scale_have_parameters_but_no_multiply_adds() -> None:
    scaled, plain = convnext("tiny"), convnext("tiny", layer_scale=None)
    assert count_params(scaled) - count_params(plain) == 6624
    assert count_macs(scaled) == count_macs(plain)


def test_an_image_smaller_than_the_total_stride_is_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"image_size is 31.*divides the resolution by 32.*at least 32"):
        count_macs(convnext("tiny"), 31)
    with pytest.raises(UserError, match=r"image_size is 31"):
        count_activations(convnext("tiny"), 31)
    small = replace(convnext("tiny"), stem_stride=2)
    with pytest.raises(UserError, match=r"image_size is 15.*by 16"):
        count_macs(small, 15)
    assert count_macs(small, 16) > 0


def test_counting_allocates_nothing() -> None:
    huge = replace(shallow(convnext("tiny")), widths=(2**17,) * 4)  # its first 1x1 convolution has 256 GiB of weights
    assert count_params(huge) > 10**11
    assert count_macs(huge, 32) > 10**12
