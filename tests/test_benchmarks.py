from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import batched_seeds, layer_norm, roofline, start_up, step_parts, training_loop
from benchmarks.layer_norm import COPYING, NORMS, OURS, alone, share_of_copies
from benchmarks.loops import OurLoop, timm_model
from benchmarks.side_by_side import ratio
from roadmap.ladder.ladder import read_ladder
from roadmap.runs.config import RunConfig
from roadmap.study.spec import StudySpec, plan_study


def small_run(rung: str, folder: Path) -> RunConfig:
    return plan_study(StudySpec("resnet50", "smoke", read_ladder(), runs=folder, seeds=[0])).configs[rung, 0]


@pytest.mark.parametrize("script", [training_loop, layer_norm, start_up, step_parts, roofline, batched_seeds])
def test_a_benchmark_prints_its_table(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", "--quick", "--device", "cpu"])
    script.main()
    head, rule, *rows = (line for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    assert rule.count("---") == head.count("|") - 1
    assert rows


def test_a_ratio_is_the_median_of_the_rounds_with_its_range() -> None:
    assert ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == "2.00 (1.00 to 3.00)"


def test_our_loop_is_the_runs_own_and_stops_where_it_is_told(tmp_path: Path) -> None:
    config = small_run("separate_downsampling", tmp_path)
    loop = OurLoop(config, None, tmp_path, "cpu")
    try:
        loop(2)
        assert loop.run.step == 2
        assert (tmp_path / "progress.json").is_file()
        loop(1)
        assert loop.run.step == 3
    finally:
        loop.close()


def test_every_layer_norm_that_is_compared_computes_the_same() -> None:
    x = torch.randn(2, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    first, *others = (make(6)(x) for make in NORMS.values())
    for other in others:
        torch.testing.assert_close(other, first)


def test_copies_of_feature_maps_are_seen_in_the_profile_and_ours_makes_none() -> None:
    x = torch.randn(4, 6, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    shares = {name: share_of_copies(alone(NORMS[name](6), x), len(x), "cpu") for name in (OURS, COPYING)}
    assert shares[OURS] == 0
    assert shares[COPYING] > 0


def test_timms_network_is_ours_tensor_for_tensor(tmp_path: Path) -> None:
    from roadmap.training.step import make_model

    config = small_run("separate_downsampling", tmp_path)
    theirs = timm_model(config)
    assert theirs is not None
    shapes = [sorted(p.numel() for p in model.parameters()) for model in (theirs, make_model(config, "cpu"))]
    assert shapes[0] == shapes[1]
    assert timm_model(small_run("move_up_depthwise", tmp_path)) is None


def test_seeds_at_once_are_the_seeds_one_by_one(tmp_path: Path) -> None:
    config = small_run("separate_downsampling", tmp_path)
    images, labels = torch.randn(2, 4, 1, 32, 32), torch.randint(10, (2, 4))
    models = batched_seeds.make_seeds(config, 2, "cpu")
    weights = batched_seeds.stack(models)
    at_once = batched_seeds.all_at_once(weights, models[0], images, labels)
    batched_seeds.one_by_one(models, images, labels)()
    at_once()
    for seed, model in enumerate(models):
        for name, value in model.named_parameters():
            torch.testing.assert_close(weights[name][seed], value, rtol=1e-3, atol=2e-5)
