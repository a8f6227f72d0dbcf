import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from roadmap import build_model
from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig
from roadmap.networks.families import convnext
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig, WeightsConfig
from roadmap.study import initial_weights as module
from roadmap.study.initial_weights import find_weights, load_weights
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train
from roadmap.training.step import make_model
from tests.samples import LAYER_NORM, PAPER

MakeRun = Callable[..., RunConfig]
NET = NetConfig(depths=(1, 2, 1), widths=(4, 8, 16))


@pytest.fixture
def start(tiny_run: MakeRun) -> Callable[..., RunConfig]:
    """Return a function from a place to a run that starts from the weights there."""

    def make(place: Path, net: NetConfig = NET, **settings: Any) -> RunConfig:
        config = tiny_run(net=net, pretrained=True, **settings)
        return RunConfig(net, config.recipe, config.data, 0, find_weights(str(place), "any", 0))

    return make


def write_weights(path: Path, net: NetConfig = NET, num_classes: int = 10) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    weights = build_model(net, num_classes=num_classes, in_channels=1).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return weights


def test_a_run_starts_from_the_weights_that_it_was_given(
    tmp_path: Path, start: Callable[..., RunConfig], small_images: Path
) -> None:
    given = write_weights(tmp_path / "given.safetensors")
    config = start(tmp_path / "given.safetensors", lr=1e-12, decay_norms_and_biases=False, weight_decay=0.0)
    (tmp_path / "run").mkdir()
    train(config, tmp_path / "run", data_root=small_images)
    left = load_file(tmp_path / "run" / run_folder.WEIGHTS)
    for name in given.keys() - {name for name in given if "running" in name or "tracked" in name}:
        torch.testing.assert_close(left[name], given[name])


def test_a_head_of_another_number_of_classes_is_a_new_one(tmp_path: Path, start: Callable[..., RunConfig]) -> None:
    given = write_weights(tmp_path / "given.pth.safetensors", num_classes=7)
    config = start(tmp_path / "given.pth.safetensors", head_init_scale=0.001)
    torch.manual_seed(0)
    model = make_model(config, "cpu")
    fresh = model.get_parameter("head.weight").clone()
    load_weights(model, config)
    assert torch.equal(model.get_parameter("head.weight"), fresh)
    assert fresh.abs().max() < 1e-3
    assert torch.equal(model.get_parameter("stem.conv.weight"), given["stem.conv.weight"])


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_timms_weights_are_taken_as_they_are(form: str, tmp_path: Path, tiny_run: MakeRun) -> None:
    net = convnext("tiny", layer_scale=None)
    torch.manual_seed(0)
    theirs = timm.create_model("convnext_tiny", num_classes=10, ls_init_value=0.5).eval()
    path = tmp_path / f"theirs.{form}"
    if form == "pth":
        torch.save({"state_dict": theirs.state_dict()}, path)
    else:
        save_file(theirs.state_dict(), path)
    config = tiny_run(net=net, pretrained=True)
    config = RunConfig(net, config.recipe, config.data, 0, find_weights(str(path), "any", 0))
    ours = build_model(net, num_classes=10).eval()
    load_weights(ours, config)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer_scale", [None, 0.5])
def test_a_layer_scale_that_the_weights_have_is_trained_on(
    layer_scale: float | None, tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    recipe = write_recipes(pretrained=True, width_divisor=32, lr=0.01, epochs=1, warmup_epochs=0.0)
    dims = {"dims": (3, 6, 12, 24), "depths": (3, 3, 9, 3), "in_chans": 1, "num_classes": 10}
    theirs = timm.models.ConvNeXt(**dims, ls_init_value=layer_scale)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    given, rung = str(tmp_path / "theirs.safetensors"), ["separate_downsampling"]
    spec = StudySpec("resnet50", str(recipe), PAPER, data_root=small_images, runs=tmp_path, weights=given, only=rung)
    (run,) = plan_study(spec).planned()
    scaled = run.config.net.block.layer_scale  # type: ignore[union-attr]
    assert scaled == (None if layer_scale is None else 1e-6)
    if layer_scale is not None:
        run.folder.mkdir()
        train(run.config, run.folder, data_root=small_images)
        left = load_file(run.folder / run_folder.WEIGHTS)
        gammas = torch.cat([left[name] for name in left if name.endswith("gamma")])
        assert len(gammas) == 3 * (3 + 6 + 3 * 12 + 24)
        assert 0 < (gammas - layer_scale).abs().max() < 0.2


def test_pretrained_weights_of_timms_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def create(name: str, pretrained: bool) -> torch.nn.Module:
        assert pretrained
        asked.append(name)
        return torch.nn.Linear(2, 2)

    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(timm, "create_model", create)
    first, second = (find_weights("timm:convnext_tiny.fb_in22k", rung, 0) for rung in ("a", "b"))
    assert first == second
    assert asked == ["convnext_tiny.fb_in22k"]
    assert Path(first.path).is_file()


def test_weights_of_timms_that_cannot_be_had_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE", tmp_path)
    with pytest.raises(UserError, match=r"--weights timm:convnext_tinny: cannot be had \(Unknown model"):
        find_weights("timm:convnext_tinny", "any", 0)
    assert not list(tmp_path.iterdir())


def test_each_rung_and_seed_has_its_own_in_what_export_wrote(tmp_path: Path) -> None:
    for name, rungs in (("gelu-s0", ["gelu", "twin"]), ("gelu-s1", ["gelu", "twin"]), ("other-s0", ["other"])):
        write_weights(tmp_path / name / run_folder.WEIGHTS)
        (tmp_path / name / "config.json").write_text(json.dumps({"roadmap": {"rungs": rungs}}))
    (tmp_path / "damaged-s0").mkdir()
    (tmp_path / "damaged-s0" / "config.json").write_text("{")
    assert find_weights(str(tmp_path), "gelu", 1).path == str(tmp_path / "gelu-s1" / run_folder.WEIGHTS)
    assert find_weights(str(tmp_path), "twin", 0).path == str(tmp_path / "gelu-s0" / run_folder.WEIGHTS)
    with pytest.raises(UserError, match="nothing for rung 'other' and seed 1"):
        find_weights(str(tmp_path), "other", 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: write_weights(path, net=LAYER_NORM),
            "weights of another network: .* tensors do not fit: ",
        ),
        (lambda path: path.write_bytes(b"no weights"), "no weights can be read from it"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), r"given\.safetensors: names like 'a' are unknown"),
    ],
    ids=["another network", "damaged", "other names"],
)
def test_weights_that_do_not_fit_are_refused_at_the_plan(
    spoil: Callable[[Path], object], message: str, tmp_path: Path, start: Callable[..., RunConfig]
) -> None:
    spoil(tmp_path / "given.safetensors")
    config = start(tmp_path / "given.safetensors")
    with pytest.raises(UserError, match=message):
        module.check_weights(config)


def test_weights_that_changed_since_the_plan_are_refused(tmp_path: Path, start: Callable[..., RunConfig]) -> None:
    write_weights(tmp_path / "given.safetensors")
    config = start(tmp_path / "given.safetensors")
    stale = RunConfig(config.net, config.recipe, config.data, 0, WeightsConfig(config.weights.path, "0" * 16))  # type: ignore[union-attr]
    with pytest.raises(UserError, match="other weights than the run was planned with"):
        load_weights(make_model(config, "cpu"), stale)


def test_other_weights_make_another_run_and_the_same_elsewhere_do_not(
    tmp_path: Path, start: Callable[..., RunConfig]
) -> None:
    for name, classes in (("a", 10), ("b", 10), ("c", 7)):
        write_weights(tmp_path / f"{name}.safetensors", num_classes=classes)
    a, b, c = (start(tmp_path / f"{name}.safetensors") for name in "abc")
    assert a.id == b.id != c.id
    assert a.key == c.key
    assert a.id.startswith(f"{a.key}-s0-w")
    assert RunConfig.from_json(json.loads(json.dumps(a.to_json()))) == a


def test_a_recipe_and_weights_go_together(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    for settings, place, message in (
        ({"pretrained": True}, None, "starts from trained weights. Say which: --weights"),
        ({}, str(tmp_path), "starts from random ones"),
    ):
        recipe = str(write_recipes(**settings))
        with pytest.raises(UserError, match=message):
            plan_study(StudySpec("resnet50", recipe, PAPER, runs=tmp_path, data_root=small_images, weights=place))
