import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision.transforms import Pad

from roadmap import build_model, load_model, read_ladder
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.data.batches import load_data
from roadmap.data.datasets import describe_data, load_arrays
from roadmap.export.safetensors_files import describe_images, export_study
from roadmap.jobs.launcher import prepare
from roadmap.networks.config import NetConfig
from roadmap.networks.convert import to_timm
from roadmap.networks.own_layers import load_module
from roadmap.recipe import Recipe
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun, Study
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import save_weights, train
from tests.conftest import NET, TINY, write_tiny
from tests.data.test_datasets import FOLDER, save_folder
from tests.processes import Command, Outcome
from tests.samples import LADDER
from tests.test_docs import block_with

MakeRecipes = Callable[..., Path]
TRAINED = ["baseline_original", "fewer_activations", "separate_downsampling"]
IMAGES = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def study_of(folder: Path, images: Path, rungs: list[str], **settings: Any) -> Study:
    recipe = write_tiny(folder / "recipes", **settings)
    return plan_study(StudySpec("resnet50", recipe, only=rungs, runs=folder / "runs", data_root=images))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> Study:
    """Three rungs, trained for a few steps."""
    study = study_of(tmp_path_factory.mktemp("trained"), small_images, TRAINED, epochs=1)
    for run in prepare(study.planned()):
        train(run.config, run.folder, data_root=small_images)
    return study


@pytest.fixture(scope="module")
def exported(trained: Study, small_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    written, missing = export_study(trained, out, small_images)
    assert (sorted(folder.name for folder in written), missing) == ([f"{rung}-s0" for rung in TRAINED], {})
    return out


def run_of(study: Study, rung: str) -> PlannedRun:
    return next(run for run in study.planned() if rung in run.rungs)


def as_trained(study: Study, rung: str) -> nn.Module:
    run = run_of(study, rung)
    model = build_model(run.config.net, num_classes=10, in_channels=1)
    model.load_state_dict(load_file(run.folder / run_folder.WEIGHTS))
    return model.eval()


def pretend_trained(run: PlannedRun) -> nn.Module:
    """Leave what a finished run leaves, with the weights that a network starts from."""
    prepare([run])
    model = build_model(run.config.net, num_classes=10, in_channels=1)
    save_weights(model, run.folder / run_folder.WEIGHTS)
    row = {"result_version": run_folder.RESULT_VERSION, "state": "finished", "top1": 50.0, "top1_ema": 60.0}
    row |= {"classes": [str(label) for label in range(10)], "test_images": 200}
    files.write_json(run.folder / run_folder.RESULT, row)
    return model.eval()


def content_of(exported: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((exported / "config.json").read_text())
    return content


# -- there and back


def test_a_layer_scale_stays_or_is_multiplied_into_the_convolution_before_it(
    tmp_path: Path, small_images: Path
) -> None:
    study = study_of(tmp_path, small_images, ["separate_downsampling"])
    key = ("separate_downsampling", 0)
    net = study.configs[key].net
    assert isinstance(net, NetConfig)
    study.configs[key] = replace(study.configs[key], net=replace(net, block=replace(net.block, layer_scale=0.5)))
    (run,) = study.planned()
    logits = pretend_trained(run)(IMAGES)
    for fold, scale in ((False, 0.5), (True, None)):
        ((folder,), missing) = export_study(study, tmp_path / str(fold), small_images, fold=fold)
        assert not missing
        assert content_of(folder)["model_args"]["net"]["block"]["layer_scale"] == scale
        torch.testing.assert_close(load_model(folder)(IMAGES), logits)
    assert not [name for name in load_file(folder / "model.safetensors") if name.endswith("gamma")]


@pytest.mark.parametrize("rung", TRAINED)
@pytest.mark.parametrize("file", ["", "model.safetensors"], ids=["folder", "file alone"])
def test_what_was_trained_comes_back_bit_for_bit(
    rung: str, file: str, trained: Study, exported: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(exported / f"{rung}-s0", tmp_path / "elsewhere")
    if file:
        (moved / "config.json").unlink()
    model = load_model(moved / file)
    assert not model.training
    assert torch.equal(model(IMAGES), as_trained(trained, rung)(IMAGES))


def test_timm_loads_the_folder_itself(trained: Study, exported: Path) -> None:
    model = timm.create_model(f"local-dir:{exported / 'fewer_activations-s0'}", pretrained=True).eval()
    assert torch.equal(model(IMAGES), as_trained(trained, "fewer_activations")(IMAGES))
    assert model.pretrained_cfg["label_names"][:2] == ["T-shirt/top", "Trouser"]


def test_timm_loads_the_file_as_a_checkpoint(trained: Study, exported: Path) -> None:
    path = exported / "fewer_activations-s0" / "model.safetensors"
    net = run_of(trained, "fewer_activations").config.net
    model = timm.create_model("roadmap_resnet50", net=net, num_classes=10, in_chans=1, checkpoint_path=path)
    assert torch.equal(model.eval()(IMAGES), as_trained(trained, "fewer_activations")(IMAGES))


def test_what_timm_saves_of_it_again_loads_again(exported: Path, tmp_path: Path) -> None:
    model = load_model(exported / "fewer_activations-s0")
    timm.models.save_for_hf(model, str(tmp_path / "again"), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True).eval()
    assert torch.equal(again(IMAGES), model(IMAGES))


def test_a_trained_rung_is_a_backbone(trained: Study, exported: Path) -> None:
    backbone = load_model(exported / "separate_downsampling-s0", features_only=True)
    whole = as_trained(trained, "separate_downsampling")
    assert torch.equal(backbone(IMAGES)[-1], whole.forward_features(IMAGES))
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]


def test_a_trained_rung_takes_a_new_head(trained: Study, exported: Path) -> None:
    model = load_model(exported / "fewer_activations-s0", num_classes=3)
    assert model(IMAGES).shape == (2, 3)
    assert torch.equal(
        model.forward_features(IMAGES), as_trained(trained, "fewer_activations").forward_features(IMAGES)
    )


def test_the_last_rung_gives_the_same_logits_as_timms_convnext(exported: Path) -> None:
    model = load_model(exported / "separate_downsampling-s0")
    theirs = timm.models.ConvNeXt(in_chans=1, num_classes=10, depths=model.net.depths, dims=model.net.widths)
    for module in theirs.modules():
        if isinstance(module, timm.models.convnext.ConvNeXtBlock):
            module.gamma = None
    theirs.load_state_dict(to_timm(model.state_dict(), model.net))
    torch.testing.assert_close(theirs.eval()(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)


def test_the_first_rung_gives_the_same_logits_as_timms_resnet(small_images: Path, tmp_path: Path) -> None:
    study = study_of(tmp_path, small_images, ["baseline"], width_divisor=1)
    pretend_trained(study.planned()[0])
    (folder,), _ = export_study(study, tmp_path / "out", small_images)
    model = load_model(folder)
    with torch.device("meta"):
        theirs = timm.create_model("resnet50", in_chans=1, num_classes=10)
    theirs.load_state_dict(to_timm(model.state_dict(), model.net), assign=True)
    torch.testing.assert_close(theirs.eval()(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)


def test_a_rung_of_a_ladder_of_ones_own_loads_without_that_ladder(small_images: Path, tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text(LADDER)
    recipe = write_tiny(tmp_path / "recipes")
    ladder = read_ladder(tmp_path / "steps.yaml")
    study = plan_study(StudySpec("resnet50", str(recipe), ladder, runs=tmp_path / "runs", data_root=small_images))
    expected = pretend_trained(run_of(study, "big_kernel"))
    (folder,), missing = export_study(study, tmp_path / "out", small_images)
    assert missing == {"not trained yet": ["start-s0", "widen-s0"]}
    for model in (load_model(folder), timm.create_model(f"local-dir:{folder}", pretrained=True).eval()):
        assert torch.equal(model(IMAGES), expected(IMAGES))


# -- what an exported run says of itself


def test_timms_transform_gives_the_images_the_predictions_and_the_accuracy_of_the_run(
    trained: Study, exported: Path, small_images: Path
) -> None:
    run = run_of(trained, "fewer_activations")
    model = load_model(exported / "fewer_activations-s0").to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_data_config(model=model))
    images = load_arrays("fashion_mnist", small_images).test
    batch = torch.stack([transform(Pad(2)(Image.fromarray(image[0]))) for image in images])
    assert torch.equal(batch, torch.cat([tested for tested, _ in load_data(run.config, small_images, "cpu").test()]))
    with torch.no_grad():
        predicted = model(batch.contiguous(memory_format=torch.channels_last)).argmax(1)
    stored = np.load(run.folder / run_folder.PREDICTIONS)
    assert (predicted.numpy() == stored[0]).all()
    assert content_of(exported / "fewer_activations-s0")["roadmap"]["top1"] == 100 * (stored[0] == stored[1]).mean()


def test_file_and_folder_say_the_same_about_where_the_weights_come_from(trained: Study, exported: Path) -> None:
    run, folder = run_of(trained, "separate_downsampling"), exported / "separate_downsampling-s0"
    content = content_of(folder)
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert json.loads(weights.metadata()["config.json"]) == content
    about, timms = content["roadmap"], content["pretrained_cfg"]
    assert (content["architecture"], timms["tag"]) == ("roadmap_resnet50", "separate_downsampling")
    assert (content["num_classes"], content["num_features"]) == (10, run.config.net.widths[-1])
    assert timms["input_size"] == [1, 32, 32]
    assert "PROXY, not ImageNet" in timms["description"]
    assert timms["notes"] == ["Images of 28x28 have zeros around them, to 32x32; they are not resized."]
    assert (about["run"], about["seed"], about["is_proxy"]) == (run.config.id, 0, True)
    assert about["recipe"]["name"] == "tiny"
    assert about["data"]["name"] == "fashion_mnist"
    assert about["commit"] == (files.read_object(run.folder / run_folder.RUN) or {})["commit"]
    assert content_of(exported / "baseline_original-s0")["roadmap"]["recipe"]["name"] == "tiny_plain"


@pytest.mark.parametrize(("resize", "mode"), [("shorter", "center"), ("squash", "squash")])
def test_images_of_folders_are_wanted_as_the_run_had_them_at_test(tmp_path: Path, resize: str, mode: str) -> None:
    arrays = load_arrays("fashion_mnist_part")
    save_folder(tmp_path, arrays.train[:200], arrays.train_labels[:200])
    recipe = Recipe(**TINY | FOLDER | {"test_crop": 0.8, "test_resize": resize, "interpolation": "bilinear"})
    config = RunConfig(NET, recipe, describe_data(recipe, tmp_path), 0)
    said = describe_images(config, tmp_path)
    wanted = resolve_data_config(
        pretrained_cfg={"input_size": (3, 32, 32), "crop_pct": 0.8, "interpolation": "bilinear", **said}
    )
    tested = torch.cat([images for images, _ in load_data(config, tmp_path, "cpu").test()])
    transform, expected = create_transform(**wanted), []
    for path in sorted((tmp_path / "val").glob("*/*.png")):
        with Image.open(path) as image:
            expected.append(transform(image.convert("RGB")))
    torch.testing.assert_close(torch.stack(expected), tested)


def test_the_moving_average_of_the_weights_is_exported_beside_them(small_images: Path, tmp_path: Path) -> None:
    study = study_of(tmp_path, small_images, ["gelu"])
    run = study.planned()[0]
    pretend_trained(run)
    average = build_model(run.config.net, num_classes=10, in_channels=1).eval()
    save_weights(average, run.folder / run_folder.EMA_WEIGHTS)
    written, _ = export_study(study, tmp_path / "out", small_images)
    assert [folder.name for folder in written] == ["gelu-s0", "gelu-s0-ema"]
    said = [content_of(folder)["roadmap"] for folder in written]
    assert [(about["weights"], about["top1"]) for about in said] == [("last step", 50.0), ("moving average", 60.0)]
    assert torch.equal(load_model(written[1])(IMAGES), average(IMAGES))


# -- what cannot be


def export(folder: Path, *arguments: object) -> Outcome:
    return Command(folder, "export", "--base", "resnet50", *map(str, arguments)).wait()


@pytest.fixture
def half_trained(tmp_path: Path, small_images: Path) -> tuple[Study, list[object]]:
    """One rung that is trained, one that diverged, one whose weights are gone, one that nobody trained."""
    rungs = ["gelu", "kernel_7", "kernel_9", "baseline"]
    study = study_of(tmp_path, small_images, rungs)
    for rung in rungs[:3]:
        pretend_trained(run_of(study, rung))
    (run_of(study, "kernel_9").folder / run_folder.WEIGHTS).unlink()
    diverged = run_of(study, "kernel_7").folder / run_folder.RESULT
    files.write_json(diverged, json.loads(diverged.read_text()) | {"state": "diverged"})
    options = ["--recipe", tmp_path / "recipes" / "tiny.yaml", "--data", small_images, "--runs", study.runs]
    return study, [*options, "--only", *rungs]


def test_rungs_without_weights_are_named_with_the_reason(
    half_trained: tuple[Study, list[object]], tmp_path: Path
) -> None:
    ended = export(tmp_path / "work", *half_trained[1])
    assert (ended.code, ended.err) == (0, "")
    assert "PROXY, not ImageNet" in ended.out
    assert "Not exported (not trained yet): baseline-s0\n" in ended.out
    assert "Not exported (diverged): kernel_7-s0\n" in ended.out
    assert "Not exported (weights are gone): kernel_9-s0\n" in ended.out
    assert "Wrote out/resnet50-tiny/export/: gelu-s0\n" in ended.out
    out = tmp_path / "work" / "out" / "resnet50-tiny" / "export"
    assert [folder.name for folder in out.iterdir()] == ["gelu-s0"]
    assert sorted(file.name for file in (out / "gelu-s0").iterdir()) == ["config.json", "model.safetensors"]
    again = export(tmp_path / "work", *half_trained[1], "--out", tmp_path / "mine")
    assert (again.code, [folder.name for folder in (tmp_path / "mine").iterdir()]) == (0, ["gelu-s0"])


def test_where_nothing_is_trained_nothing_is_written(half_trained: tuple[Study, list[object]], tmp_path: Path) -> None:
    ended = export(tmp_path / "work", *half_trained[1][:-4], "baseline")
    assert (ended.code, ended.err) == (1, "")
    assert "There is nothing to export yet. 'run' trains what is missing." in ended.out
    assert list((tmp_path / "work").iterdir()) == []


def test_damaged_weights_of_a_run_are_one_message(half_trained: tuple[Study, list[object]], tmp_path: Path) -> None:
    weights = run_of(half_trained[0], "gelu").folder / run_folder.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    ended = export(tmp_path / "work", *half_trained[1])
    assert ended.code == 2
    assert ended.err.startswith(f"run_ladder.py: {weights}: is damaged (")
    assert "Remove the run's folder to train it again." in ended.err


def say(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Have an exported file say something else of itself."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["config.json"])
    change(content)
    save_file(load_file(path), path, metadata={"config.json": json.dumps(content)})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such file.*export' writes them"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-50]), "is no whole safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "is no whole safetensors file"),
    "text": (lambda path: path.write_text("weights"), "is no whole safetensors file"),
    "weights alone": (lambda path: save_file(load_file(path), path), "are weights without their network"),
    "no words": (
        lambda path: save_file(load_file(path), path, metadata={"config.json": "{"}),
        "what it says of itself is damaged",
    ),
    "nothing said": (lambda path: say(path, dict.clear), "what it says of itself is damaged"),
    "a key is gone": (lambda path: say(path, lambda said: said.pop("model_args")), "what it says of itself is damaged"),
    "another version": (
        lambda path: say(path, lambda said: said["roadmap"].update(export_version=99)), "export_version is 99, but"
    ),
    "another ladder": (
        lambda path: say(path, lambda said: said.update(architecture="roadmap_resnet5")),
        "unknown architecture 'roadmap_resnet5'. Did you mean 'roadmap_resnet50'?",
    ),
    "no network": (
        lambda path: say(path, lambda said: said["model_args"]["net"].update(depths=[1])), "1 depths .* do not match 4"
    ),
    "another network": (
        lambda path: say(path, lambda said: said["model_args"]["net"].update(widths=[8, 16, 24, 32])),
        "cannot be loaded as asked .* Leave out what changes the network, or export it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_export_is_refused_in_words(
    damage: Callable[[Path], object], message: str, exported: Path, tmp_path: Path
) -> None:
    file = shutil.copy(exported / "fewer_activations-s0" / "model.safetensors", tmp_path)
    damage(Path(file))
    with pytest.raises(UserError, match=message) as refusal:
        load_model(file)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        load_model(tmp_path)


# -- the documentation


def test_the_documentations_trained_rung_loads(
    trained: Study, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = block_with("python", "load_model")
    shutil.copytree(
        exported / "separate_downsampling-s0", tmp_path / "out/resnet50-fashion/export/separate_downsampling-s0"
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert torch.equal(names["model"](IMAGES), as_trained(trained, "separate_downsampling")(IMAGES))
    assert [found.shape[-1] for found in names["backbone"](IMAGES)] == [8, 4, 2, 1]
    assert names["tuned"](IMAGES).shape == (2, 5)


def test_the_documentations_convnext_of_timm_becomes_a_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = block_with("python", "convnext_tiny.safetensors")
    theirs = timm.create_model("convnext_tiny", ls_init_value=0.5).eval()
    save_file(theirs.state_dict(), tmp_path / "convnext_tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    ours = names["model"].eval()
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


# -- other formats, by the command


def test_the_ends_of_the_ladder_are_written_for_a_library_and_the_others_named(
    trained: Study, small_images: Path, tmp_path: Path
) -> None:
    options = ["--recipe", trained.runs.parent / "recipes" / "tiny.yaml", "--data", small_images]
    ended = export(tmp_path, *options, "--runs", trained.runs, "--only", *TRAINED, "--format", "timm")
    assert (ended.code, ended.err) == (0, "")
    assert "Not exported (timm has no such network): baseline_original-s0, fewer_activations-s0\n" in ended.out
    assert "Wrote out/resnet50-tiny/export-timm/: separate_downsampling-s0\n" in ended.out
    folder = tmp_path / "out" / "resnet50-tiny" / "export-timm" / "separate_downsampling-s0"
    assert f"Load one with timm.create_model('local-dir:{folder.relative_to(tmp_path)}', pretrained=True)." in ended.out
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert isinstance(theirs, timm.models.ConvNeXt)
    torch.testing.assert_close(theirs(IMAGES), as_trained(trained, "separate_downsampling")(IMAGES), atol=1e-5, rtol=0)
    assert torch.equal(load_model(folder)(IMAGES), theirs(IMAGES))


def test_an_unknown_format_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    ended = export(tmp_path, "--format", "onyx")
    assert ended.code == 2
    assert "unknown format 'onyx'. Did you mean 'onnx'? Known: roadmap, timm, torchvision, official" in ended.err


# -- what a file cannot make this program do

LAYER = """
from pathlib import Path

from torch import nn

Path(__file__).with_name("was_run").touch()


class Scale(nn.Identity):
    def __init__(self, width: int) -> None:
        super().__init__()
"""


@pytest.fixture
def with_own_layer(exported: Path, tmp_path: Path) -> Iterator[tuple[Path, Path, str]]:
    """An exported file whose network has a layer of a Python file; that file, and its fingerprint."""
    code = tmp_path / "somebodys_layers.py"
    code.write_text(LAYER)
    fingerprint = hashlib.sha256(code.read_bytes()).hexdigest()[:12]
    layer = {"slot": "spatial", "name": "Scale", "path": str(code), "fingerprint": fingerprint}
    file = Path(shutil.copy(exported / "fewer_activations-s0" / "model.safetensors", tmp_path))
    say(file, lambda said: said["model_args"]["net"]["block"].update(layers_after=[layer]))
    with safe_open(file, framework="pt") as content:
        (tmp_path / "config.json").write_text(content.metadata()["config.json"])
    yield file, code, fingerprint
    sys.modules.pop("somebodys_layers", None)


def test_a_file_runs_no_code_of_its_author(with_own_layer: tuple[Path, Path, str]) -> None:
    file, code, _ = with_own_layer
    for trust in ({}, {"trust_code": False}, {"trust_code": "0" * 12}):
        with pytest.raises(UserError, match=rf"layer 'Scale': comes from the Python file {code} \(fingerprint"):
            load_model(file, **trust)
    with pytest.raises(UserError, match=r"trust_code=True"):
        timm.create_model(f"local-dir:{file.parent}", pretrained=True)
    say(file, lambda said: said["model_args"].update(trust_code=True))
    with pytest.raises(UserError, match="would run"):
        load_model(file)
    assert not code.with_name("was_run").exists()


@pytest.mark.parametrize("how", ["trust_code=True", "the fingerprint", "imported before"])
def test_code_that_the_user_trusts_is_run(how: str, with_own_layer: tuple[Path, Path, str], exported: Path) -> None:
    file, code, fingerprint = with_own_layer
    if how == "imported before":
        load_module(code)
    trust = {"trust_code=True": {"trust_code": True}, "the fingerprint": {"trust_code": fingerprint}}.get(how, {})
    model = load_model(file, **trust)
    assert any(type(module).__name__ == "Scale" for module in model.modules())
    assert torch.equal(model(IMAGES), load_model(exported / "fewer_activations-s0")(IMAGES))


@pytest.mark.parametrize(
    "said", [{"checkpoint_path": "other.pth"}, {"pretrained_cfg_overlay": {"file": "other.pth"}}, {"pretrained": False}]
)
def test_a_file_cannot_have_another_file_loaded_by_its_arguments(
    said: dict[str, Any], exported: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(exported / "fewer_activations-s0" / "model.safetensors", tmp_path))
    say(file, lambda config: config["model_args"].update(said))
    with pytest.raises(UserError, match=rf"says '{next(iter(said))}' of its network"):
        load_model(file)


def test_a_file_cannot_have_another_file_loaded_by_what_it_says_of_images(exported: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(exported / "fewer_activations-s0" / "model.safetensors", tmp_path))
    other = str(exported / "separate_downsampling-s0")
    say(file, lambda said: said["pretrained_cfg"].update(source="local-dir", file=other, url="http://nowhere.invalid"))
    assert torch.equal(load_model(file)(IMAGES), load_model(exported / "fewer_activations-s0")(IMAGES))
