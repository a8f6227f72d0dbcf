"""Detectors and segmenters cost what the paper's tables print."""

import pytest
import torch
from torch import nn

from roadmap.common.errors import UserError
from roadmap.downstream.counts import count_cost
from roadmap.downstream.feature_maps import FeatureMaps, levels_of
from roadmap.downstream.tables import Row, read_tables
from roadmap.downstream.upernet import UPerNet
from roadmap.networks.families import BASES, convnext

ROWS = {f"{row.framework} {row.backbone} {row.pretraining}": row for row in read_tables()}
OURS = [row for row in ROWS.values() if not row.backbone.startswith("Swin")]


@pytest.mark.parametrize("row", OURS, ids=lambda row: f"{row.framework}-{row.backbone}-{row.pretraining}")
def test_our_networks_cost_what_the_paper_prints(row: Row) -> None:
    cost = count_cost(row.framework, row.net, row.size)
    assert cost.as_printed(has_attention=True) / 1e9 == pytest.approx(row.gmacs, abs=0.6)
    if row.params_m is not None:
        assert cost.params / 1e6 == pytest.approx(row.params_m, abs=0.5)


@pytest.mark.parametrize("name", ["mask_rcnn Swin-T imagenet1k", "cascade_mask_rcnn Swin-L imagenet22k"])
def test_swin_costs_what_the_paper_prints(name: str) -> None:
    row = ROWS[name]
    cost = count_cost(row.framework, row.net, row.size)
    assert cost.as_printed(has_attention=row.has_attention) / 1e9 == pytest.approx(row.gmacs, abs=0.6)


def test_what_the_papers_counter_adds_is_the_same_in_the_heads_of_every_cascade() -> None:
    rest = [count_cost("cascade_mask_rcnn", convnext(size), (800, 1280)).elementwise for size in ("tiny", "xlarge")]
    assert all(0.8e9 < each < 1.1e9 for each in rest)  # the backbone's own share is what is above 0.8


def test_a_plain_upernet_is_as_large_as_its_layers() -> None:
    with torch.device("meta"):
        model = UPerNet(FeatureMaps(convnext("tiny", layer_scale=None)), 150)
    counted = count_cost("upernet", convnext("tiny", layer_scale=None), (512, 2048))
    assert counted.params == sum(p.numel() for p in model.parameters())
    backbone = sum(p.numel() for p in model.backbone.network.parameters())
    head, norm = 768 * 1000 + 1000, 2 * 768
    assert backbone == 28_589_128 - 6_624 - head - norm  # ConvNeXt-T without layer scale, head and last norm


def test_a_backbone_has_the_last_stage_of_each_of_four_resolutions() -> None:
    assert levels_of(list(BASES["mobilenet_v2"].reductions)) == [0, 1, 3, 5]
    assert levels_of(list(BASES["vgg16"].reductions)) == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"strides 16, but a detector or segmenter needs 4 resolutions"):
        levels_of(list(convnext("isotropic_small").reductions))


def test_each_feature_map_is_normalised_at_every_place() -> None:
    backbone = FeatureMaps(convnext("tiny", layer_scale=None), in_channels=1)
    maps = backbone(torch.randn(2, 1, 64, 64))
    assert [tuple(each.shape) for each in maps] == [(2, 96, 16, 16), (2, 192, 8, 8), (2, 384, 4, 4), (2, 768, 2, 2)]
    for each in maps:
        assert each.mean(1).abs().max() < 1e-5
        assert (each.var(1, correction=0) - 1).abs().max() < 1e-2


def test_every_parameter_of_a_segmenter_has_a_gradient() -> None:
    from roadmap.networks.config import scale_down

    torch.manual_seed(0)
    net = scale_down(convnext("tiny"), width_divisor=8, stem_stride=4)
    model: nn.Module = UPerNet(FeatureMaps(net, in_channels=1), 3, width=8, auxiliary_width=8)
    labels = torch.randint(3, (2, 64, 64))
    model.loss(torch.randn(2, 1, 64, 64), labels).backward()  # type: ignore[operator]
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.ndim > 1)


def test_pixels_that_do_not_count_change_no_loss() -> None:
    torch.manual_seed(0)
    model = UPerNet(FeatureMaps(BASES["resnet50"], in_channels=1), 3, width=8, auxiliary_width=8)
    images, labels = torch.randn(1, 1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :8] = 255
    model.eval()
    loss = model.loss(images, labels)
    others = labels.clone()
    others[:, 32:] = 1
    assert torch.isfinite(loss)
    assert loss != model.loss(images, others)
    with torch.no_grad():
        logits = model(images)
        wanted = nn.functional.cross_entropy(logits[:, :, 8:], labels[:, 8:])
        auxiliary = model.loss(images, labels) - wanted
    assert 0 < auxiliary < loss
