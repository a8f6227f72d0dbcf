"""Steps and layers of a user's own: a Python file beside a ladder."""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from roadmap.common.errors import UserError
from roadmap.common.fields import hashed_fields
from roadmap.ladder.ladder import read_ladder
from roadmap.ladder.own_steps import load_steps
from roadmap.ladder.steps import NET_STEPS
from roadmap.networks import own_layers
from roadmap.networks.config import NetConfig
from roadmap.networks.model import build_model
from roadmap.networks.own_layers import load_module, make_layer
from roadmap.runs import run_folder
from roadmap.runs.config import DataConfig, RunConfig
from roadmap.training.loop import train
from tests.cli.test_cli import run
from tests.samples import LAYER_NORM, make_recipe

STEPS_FILE = """\
from dataclasses import replace

import torch
from torch import nn

from roadmap import NetConfig, Recipe, own_layer


class Gain(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x):
        return self.gain * x


def add_gain(net: NetConfig) -> NetConfig:
    return replace(net, block=replace(net.block, layers_after=(own_layer("pointwise1", Gain),)))


def warmer(recipe: Recipe, *, target: Recipe) -> Recipe:
    return replace(recipe, lr=2 * target.lr)


def _helper(net: NetConfig) -> NetConfig:
    return net
"""
LADDER = """\
bases:
  resnet50: {label: ResNet-50, result: End}
rungs:
  - {id: start, label: start}
  - {id: mine, label: mine, step: STEP}
"""


pytestmark = pytest.mark.usefixtures("own_steps")


def write(folder: Path, text: str = STEPS_FILE, name: str = "my_steps.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def write_ladder(folder: Path, step: str) -> Path:
    return write(folder, LADDER.replace("STEP", step), "mine.yaml")


def with_gain(path: Path) -> NetConfig:
    load_steps(path)
    return NET_STEPS["add_gain"](NetConfig(depths=(1,), widths=(4,)))


def config_of(net: NetConfig) -> RunConfig:
    return RunConfig(net, make_recipe(), DataConfig("some", "0123", 10, 3, 100), 0)


def test_public_functions_from_a_network_or_recipe_to_one_are_steps(tmp_path: Path) -> None:
    assert load_steps(write(tmp_path)) == ["add_gain", "warmer"]
    ladder = read_ladder(write_ladder(tmp_path, "add_gain"))
    assert ladder.climb("resnet50")[-1].net.block.layers_after[0].name == "Gain"
    (*_, mine) = read_ladder(write_ladder(tmp_path, "warmer")).climb("resnet50")
    assert mine.recipe(make_recipe(lr=0.5)).lr == 1.0


def test_an_own_layer_is_built_behind_its_convolutions_norm_and_activation(tmp_path: Path) -> None:
    net = with_gain(write(tmp_path))
    names = [name for name, _ in build_model(net).stages[0][0].residual.named_children()]
    assert names[:4] == ["pointwise1", "pointwise1_norm", "pointwise1_act", "pointwise1_Gain"]
    assert build_model(net).stages[0][0].residual.pointwise1_Gain.gain.shape == (4, 1, 1)


def test_a_runs_name_depends_on_the_files_content_and_not_on_its_place(tmp_path: Path) -> None:
    here = config_of(with_gain(write(tmp_path / "a"))).id
    sys.modules.pop("my_steps")
    assert config_of(with_gain(write(tmp_path / "b"))).id == here
    assert config_of(with_gain(write(tmp_path / "b", STEPS_FILE + "\n# another"))).id != here
    assert "layers_after" not in hashed_fields(NetConfig(depths=(1,), widths=(4,)).block)


def test_a_job_reads_the_layer_from_its_file(tmp_path: Path) -> None:
    config = config_of(with_gain(write(tmp_path)))
    sys.modules.pop("my_steps")
    read = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert (read, read.id) == (config, config.id)
    build_model(read.net)
    assert hasattr(sys.modules["my_steps"], "Gain")


def test_a_job_refuses_a_file_that_has_changed_since_it_was_planned(tmp_path: Path) -> None:
    net = with_gain(write(tmp_path))
    sys.modules.pop("my_steps")
    write(tmp_path, STEPS_FILE.replace("torch.ones", "torch.zeros"))
    with pytest.raises(UserError, match=r"my_steps\.py: has changed since .* Start the same command again"):
        build_model(net)
    (tmp_path / "my_steps.py").unlink()
    with pytest.raises(UserError, match=r"my_steps\.py: cannot be read \(No such file"):
        build_model(net)


def test_a_module_that_is_imported_already_serves_wherever_the_file_lay(tmp_path: Path) -> None:
    net = with_gain(write(tmp_path / "old"))
    (tmp_path / "old" / "my_steps.py").rename(tmp_path / "my_steps.py")
    build_model(net)


def test_an_edited_file_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = load_module(path)
    assert load_module(path) is before
    assert load_module(write(tmp_path, STEPS_FILE + "\nNEW = 1\n")).NEW == 1


def test_a_file_that_was_imported_plainly_and_edited_since_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(write(tmp_path).parent)
    importlib.import_module("my_steps")
    assert load_module(write(tmp_path, STEPS_FILE + "\nNEW = 1\n")).NEW == 1


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("def mine(net: 'NetConfg'): return net", "my_steps.py", r"'NetConfg' is not defined"),
        (
            "from roadmap import NetConfig\ndef gelu(net: NetConfig): return net",
            "my_steps.py",
            r"step 'gelu' has the name of another step\. Give yours a name of its own",
        ),
        (
            "from roadmap import NetConfig\ndef mine(net: 'NetConfig['): return net",
            "my_steps.py",
            r"step 'mine': its annotations cannot be read",
        ),
        ("raise SystemExit(0)", "my_steps.py", r"cannot be imported \(SystemExit: 0\)"),
        ("x = 1", "my_steps.py", r"has no steps\. A step is a public function .*'net: NetConfig'"),
        ("import nowhere", "my_steps.py", r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere'\)"),
        ("def f(:", "my_steps.py", r"cannot be imported \(SyntaxError: .*my_steps.py, line 1\)"),
        (STEPS_FILE, "json.py", r"'json' is another module already .* Give the file another name"),
        (STEPS_FILE, "my-steps.py", r"is no name of a Python module"),
        (STEPS_FILE, "my_steps.txt", r"is no name of a Python module"),
    ],
)
def test_a_file_that_has_no_usable_steps_is_refused(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_steps(write(tmp_path, text, name))


def test_a_layer_needs_a_file_a_slot_and_a_class_that_is_there(tmp_path: Path) -> None:
    net = with_gain(write(tmp_path))
    (layer,) = net.block.layers_after
    with pytest.raises(UserError, match=r"unknown slot 'spatail'\. Did you mean 'spatial'\?"):
        replace(net.block, layers_after=(replace(layer, slot="spatail"),))
    with pytest.raises(UserError, match="has a layer twice after one convolution"):
        replace(net.block, layers_after=(layer, layer))
    with pytest.raises(UserError, match="has no class 'Loss'"):
        make_layer(replace(layer, name="Loss"), 4)
    namespace: dict[str, type] = {"__name__": "__main__"}
    exec("class Here: pass", namespace)
    with pytest.raises(UserError, match="layer 'Here': jobs make it from its file, and it has none"):
        own_layers.own_layer("spatial", namespace["Here"])


BROKEN = (
    STEPS_FILE
    + """

import random


def forget(net: NetConfig) -> NetConfig:
    replace(net, depths=(1, 1, 1, 1))


def nothing(net: NetConfig) -> NetConfig:
    return net


def draw(net: NetConfig) -> NetConfig:
    return replace(net, depths=tuple(random.randint(2, 1000) for _ in net.depths))


def crash(net: NetConfig) -> NetConfig:
    return net.widths[7]


class Idle(Gain):
    def forward(self, x):
        return x


class Detached(Gain):
    def forward(self, x):
        return x.detach() * self.gain.detach()


class Square(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(width))

    def forward(self, x):
        return torch.einsum("nchw,cd->ndhw", x, self.matrix)


class Narrow(nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        return x[:, 1:]


def layer(net: NetConfig, *, name: str) -> NetConfig:
    return replace(net, block=replace(net.block, layers_after=(own_layer("pointwise1", globals()[name]),)))
"""
)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("forget", "returns None, but must return a NetConfig"),
        ("nothing", "step 'nothing' changes nothing after 'start'"),
        ("crash", "step 'crash' failed (IndexError: tuple index out of range). Mend the step"),
    ],
)
def test_a_step_that_makes_no_other_network_ends_the_climb_with_its_place(
    tmp_path: Path, step: str, words: str
) -> None:
    load_steps(write(tmp_path, BROKEN))
    with pytest.raises(UserError) as error:
        read_ladder(write_ladder(tmp_path, step)).climb("resnet50")
    assert "rung 'mine' from resnet50" in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("draw", "mine: pure: the step makes something else the second time"),
        ("layer, args: {name: Idle}", "mine: trains: no gradient reaches 'stages.0.0.residual.pointwise1_Idle.gain'"),
        (
            "layer, args: {name: Detached}",
            "trains: no gradient reaches 'stages.0.0.residual.pointwise1.weight': the output",
        ),
        ("layer, args: {name: Square}", "of the multiply-adds are in no convolution or linear layer"),
        (
            "layer, args: {name: Narrow}",
            "mine: builds: layer 'Narrow' (pointwise1): maps (2, 4, 32, 32) to (2, 3, 32, 32), but must map it",
        ),
    ],
)
def test_check_finds_what_a_step_does_not_keep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str, words: str
) -> None:
    import run_ladder

    ladder = write_ladder(tmp_path, step)
    assert run_ladder.main(["check", str(ladder), "--steps-module", str(write(tmp_path, BROKEN))]) == 1
    assert words in " ".join(capsys.readouterr().out.split())


def test_a_ladder_with_an_own_step_trains_reports_and_reruns_what_an_edit_changes(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    ladder, path, recipe = write_ladder(tmp_path, "add_gain"), write(tmp_path), write_recipes()
    words = ("--base", "resnet50", "--steps", ladder, "--steps-module", path, "--recipe", recipe)
    words = (*words, "--data", small_images, "--jobs", "1")
    ended = run(tmp_path, *words)
    assert ended.code == 0, ended.err
    assert list((tmp_path / "out").glob("*-mine/report.html"))
    write(tmp_path, STEPS_FILE.replace("torch.ones", "0.5 * torch.ones"))
    planned = run(tmp_path, "plan", *words, "--json").rows()
    assert [row["state"] for row in planned] == ["finished", "waiting"]


def test_without_its_file_a_ladders_step_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rung 'mine': unknown step 'add_gain'"):
        read_ladder(write_ladder(tmp_path, "add_gain"))


def test_check_is_about_one_ladder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import run_ladder

    assert run_ladder.main(["check", "vgg16", "--steps", "vgg16"]) == 2
    assert run_ladder.main(["plan", "vgg16", "--base", "vgg16"]) == 2
    assert "'vgg16': is for check, not for plan" in capsys.readouterr().err


def test_a_file_that_draws_random_numbers_when_it_is_imported_changes_no_runs_weights(
    tmp_path: Path, small_images: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    drawing = "import torch\ntorch.manual_seed(3)\ntorch.rand(7)\n" + STEPS_FILE
    load_steps(write(tmp_path, drawing))
    config = tiny_run(net=NET_STEPS["add_gain"](LAYER_NORM), epochs=1)
    weights = []
    sys.modules.pop("my_steps")  # a worker imports it for the first run that it trains
    for name in ("first", "second"):
        train(config, tmp_path / name, data_root=small_images)
        weights.append((tmp_path / name / run_folder.WEIGHTS).read_bytes())
    assert weights[0] == weights[1]
