"""Ladders whose networks are not ours: timm's, those of a user's function, and those that a function changes."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import run_ladder
from analysis.report.write import write_report
from analysis.step_comparison import compare_step
from analysis.study_results import StudyResults
from roadmap import TimmNet, build_model, count_macs, count_params, load_model, read_ladder
from roadmap.common.errors import UserError
from roadmap.export.safetensors_files import export_study
from roadmap.jobs.launcher import prepare
from roadmap.ladder.conformance import Inspector, trials
from roadmap.ladder.designs import Design, lay_out
from roadmap.networks.cost import counts_apart
from roadmap.networks.nets import FactoryNet, ModifiedNet, Net, as_published
from roadmap.networks.own_layers import load_module
from roadmap.recipe import read_recipe
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train
from tests.conftest import write_tiny
from tests.samples import LADDERS

pytestmark = pytest.mark.usefixtures("own_steps")

MODELS = """\
import torch
from torch import nn

from roadmap import NetConfig


class Small(nn.Module):
    def __init__(self, num_classes, in_chans, width, mixing):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU())
        self.mix = nn.Parameter(torch.randn(width, width) / width) if mixing else None
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        return self.head(x if self.mix is None else torch.einsum("nc,cd->nd", x, self.mix))


def make(num_classes, in_chans, width=8, mixing=False):
    return Small(num_classes, in_chans, width, mixing)


class Curious(Small):
    def forward(self, x):
        return super().forward(x) * (1.0 if self.head.bias[0].item() > -1e9 else 2.0)


def curious(num_classes, in_chans):
    return Curious(num_classes, in_chans, 8, False)


def flat(num_classes, in_chans, width=8):
    return nn.Conv2d(in_chans, num_classes, 1)


def a_word(num_classes, in_chans, width=8):
    return "no module"


def start(width=4) -> NetConfig:
    return NetConfig(depths=(1, 1), widths=(width, 2 * width))
"""
STEPS = """\
from torch import nn

from roadmap import NetConfig, TimmNet


def gelu_everywhere(model: nn.Module) -> nn.Module:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.GELU())
    return model


def wider_head(model: nn.Module, *, factor: int) -> nn.Module:
    hidden = model.head.in_features * factor
    model.head = nn.Sequential(nn.Linear(model.head.in_features, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    return model


def idle(model: nn.Module) -> nn.Module:
    return model


def forgets(model: nn.Module) -> nn.Module:
    model.eval()


def to_resnet18(net: NetConfig) -> TimmNet:
    return TimmNet("resnet18")
"""
BASE = 'mine: {label: Mine, result: End, model: "my_models.py:make", proxy: {width: 4}}'
LADDER = f"""\
sections: [First]
steps_module: my_steps.py
bases:
  {BASE}
rungs:
  - {{id: start, label: start}}
  - {{id: gelu, label: GELU, section: First, step: gelu_everywhere}}
  - {{id: mixing, label: mixing, section: First, set_args: {{mixing: true}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a user's models and steps."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "my_steps.py").write_text(STEPS)
    return tmp_path


def ladder_in(folder: Path, text: str = LADDER) -> Any:
    (folder / "mine.yaml").write_text(text)
    return read_ladder(folder / "mine.yaml")


def with_rung(entry: str) -> str:
    """Return the ladder with one more rung."""
    return f"{LADDER}  - {{id: more, label: more, section: First, {entry}}}\n"


def made_by(folder: Path, function: str, **args: Any) -> Net:
    """Return the network of a function of the user's file."""
    words = ", ".join(f"{name}: {json.dumps(value)}" for name, value in args.items())
    text = f'bases:\n  mine: {{label: M, result: E, model: "my_models.py:{function}", args: {{{words}}}}}\n'
    return ladder_in(folder, text + "rungs: [{id: start, label: start}]\n").start("mine")


def torchs_count(net: Net, size: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_model(net).eval()(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops()) // 2


# -- what the shipped ladders are


@pytest.mark.parametrize(
    ("ladder", "base", "start", "end"),
    [
        ("vit", "deit_tiny", "deit_tiny_patch16_224", "vit_wee_patch16_reg1_gap_256"),
        ("convnext_v2", "convnext_tiny", "convnext_tiny", "convnextv2_tiny"),
    ],
)
def test_the_ladders_of_timms_networks_end_at_timms_own(ladder: str, base: str, start: str, end: str) -> None:
    path = [rung.net for rung in LADDERS[ladder].climb(base) if rung.adopted]
    for net, name in ((path[0], start), (path[-1], end)):
        ours, theirs = as_published(net), as_published(TimmNet(name))
        assert count_macs(ours) == count_macs(theirs)
        assert count_params(ours) == count_params(theirs)
        with torch.device("meta"):
            shapes = [{k: v.shape for k, v in build_model(one).state_dict().items()} for one in (ours, theirs)]
        assert shapes[0] == shapes[1]


def test_the_convolutional_stem_has_as_many_positions_and_one_block_fewer() -> None:
    rungs = {rung.id: rung.net for rung in LADDERS["vit"].climb("deit_tiny")}
    small = {"width_divisor": 8, "stem_stride": 4, "image_size": 32}
    before, after = (build_model(rungs[name].scaled(**small)).eval() for name in ("register", "conv_stem"))
    images = torch.zeros(1, 3, 32, 32)
    assert after.patch_embed(images).shape == before.patch_embed(images).shape == (1, 64, 48)
    assert len(after.blocks) == len(before.blocks) - 1


# -- counts


def test_counts_of_networks_that_are_not_ours_are_fvcores_and_torchs(folder: Path) -> None:
    from fvcore.nn import FlopCountAnalysis

    for net, size in ((TimmNet("efficientnet_b0"), 64), (made_by(folder, "make", width=16), 32)):
        analysis = FlopCountAnalysis(build_model(net).eval(), torch.zeros(1, 3, size, size))
        by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
        assert count_macs(net, size) == torchs_count(net, size) == by_operator["conv"] + by_operator["linear"]
        assert counts_apart(net, size) == ""


def test_where_two_counters_differ_torchs_is_used_and_the_difference_is_said(folder: Path) -> None:
    net = made_by(folder, "make", width=16, mixing=True)
    assert count_macs(net, 32) == torchs_count(net, 32) == count_macs(made_by(folder, "make", width=16), 32) + 16 * 16
    assert "bmm" in counts_apart(net, 32)


def test_a_network_that_looks_at_numbers_is_counted_on_the_cpu(folder: Path) -> None:
    assert count_macs(made_by(folder, "curious"), 32) == count_macs(made_by(folder, "make"), 32)


# -- what networks are made of


def test_null_is_an_argument_like_others() -> None:
    rungs = {rung.id: build_model(rung.net) for rung in LADDERS["convnext_v2"].climb("convnext_tiny")[:2]}
    scales = {name: [key for key in model.state_dict() if key.endswith("gamma")] for name, model in rungs.items()}
    assert scales["convnext"]
    assert not scales["only_no_layer_scale"]


def test_a_network_gets_the_size_of_the_images_where_it_takes_one_and_a_proxys_arguments_only_in_a_proxy() -> None:
    net = LADDERS["vit"].start("deit_tiny")
    assert dict(as_published(net).args) == {"img_size": 224}
    assert dict(net.scaled(width_divisor=1, stem_stride=4, image_size=32).args) == {"img_size": 32}
    small = dict(net.scaled(width_divisor=8, stem_stride=4, image_size=32).args)
    assert small == {"img_size": 32, "patch_size": 4, "embed_dim": 48, "num_heads": 3, "depth": 4}
    assert TimmNet("resnet18").scaled(width_divisor=8, stem_stride=4, image_size=32) == TimmNet("resnet18")


def test_a_function_on_modules_is_called_after_the_network_is_built(folder: Path) -> None:
    rungs = {rung.id: rung.net for rung in ladder_in(folder).climb("mine")}
    assert isinstance(rungs["mixing"], ModifiedNet)
    model = build_model(rungs["mixing"], num_classes=10)
    assert model.mix is not None
    assert any(isinstance(module, nn.GELU) for module in model.modules())
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())


def test_a_step_on_fields_reaches_under_a_function_on_modules(folder: Path) -> None:
    text = LADDER.replace(BASE, "resnet50: {label: R, result: E}").replace(MIXING, "step: depthwise_conv")
    rungs: dict[str, Any] = {rung.id: rung.net for rung in ladder_in(folder, text).climb("resnet50")}
    assert rungs["mixing"].source.block.depthwise
    assert rungs["mixing"].steps == rungs["gelu"].steps


def test_the_start_may_be_a_network_of_ours_that_a_function_returns_or_what_a_step_makes(folder: Path) -> None:
    assert count_params(made_by(folder, "start", width=8)) > 0
    text = "sections: [S]\nsteps_module: my_steps.py\nbases:\n  resnet50: {label: R, result: E}\nrungs:\n"
    ladder = ladder_in(folder, text + "  - {id: start, label: s, step: to_resnet18}\n"
                       '  - {id: other, label: o, section: S, model: "timm:resnet26"}\n')  # fmt: skip
    assert [rung.net for rung in ladder.climb("resnet50")] == [TimmNet("resnet18"), TimmNet("resnet26")]
    assert [rung.net for rung in lay_out(ladder, "resnet50", Design("leave-one-out")).rungs][1] == TimmNet("resnet18")


def test_a_ladder_of_our_steps_may_end_at_or_be_held_against_any_network(folder: Path) -> None:
    own = '{id: effnet, label: B0, model: "timm:efficientnet_b0"}'
    rung = '{id: theirs, label: t, section: Micro Design, model: "timm:convnext_tiny"}'
    text = f"extends: steps\nreferences: [{own}]\nrungs:\n  - {rung}\n"
    layout = lay_out(ladder_in(folder, text), "resnet50", Design())
    assert [(rung.id, rung.net) for rung in layout.rungs[-2:]] == [
        ("theirs", TimmNet("convnext_tiny")),
        ("effnet", TimmNet("efficientnet_b0")),
    ]
    assert layout.rungs[-1].parent == "theirs"


def test_a_runs_name_depends_on_what_a_file_says_and_not_on_where_it_lies(
    folder: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    net = ladder_in(folder).climb("mine")[-1].net
    (folder / "elsewhere").mkdir()
    for name in ("my_models.py", "my_steps.py"):
        (folder / "elsewhere" / name).write_text((folder / name).read_text())
    sys.modules.pop("my_steps")
    moved = ladder_in(folder / "elsewhere").climb("mine")[-1].net
    assert moved != net
    config = tiny_run(net=net)
    assert tiny_run(net=moved).id == config.id
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    (folder / "my_models.py").write_text(MODELS + "# another\n")
    sys.modules.pop("my_steps")
    assert tiny_run(net=ladder_in(folder).climb("mine")[-1].net).id != config.id


# -- check


def test_check_holds_the_start_and_functions_on_modules_to_what_every_step_must_keep(folder: Path) -> None:
    ladder, target = ladder_in(folder), read_recipe("imagenet")
    inspector = Inspector()
    found = {trial.rung.id: inspector.inspect(trial) for trial in trials(ladder, "mine", target)}
    assert {name: findings.problems for name, findings in found.items()} == {"start": {}, "gelu": {}, "mixing": {}}
    assert found["start"].tried == ["builds", "trains", "costs"]


def test_check_finds_a_function_that_changes_nothing_or_returns_nothing(folder: Path) -> None:
    for step, check, text in (("idle", "changes", "changes nothing"), ("forgets", "builds", "returns NoneType")):
        ladder = ladder_in(folder, with_rung(f"step: {step}"))
        *_, last = trials(ladder, "mine", read_recipe("imagenet"))
        assert text in Inspector().inspect(last).problems[check]


# -- from nothing to the page


@pytest.fixture
def study(folder: Path, small_images: Path) -> Study:
    recipe = write_tiny(folder / "recipes", seeds=[0], batch_size=160, epochs=1, width_divisor=8, drop_path=0.1)
    return plan_study(StudySpec("mine", str(recipe), ladder_in(folder), runs=folder / "runs", data_root=small_images))


def test_a_ladder_from_a_users_function_trains_reports_compares_and_leaves(
    study: Study, folder: Path, small_images: Path
) -> None:
    assert "width / 8" not in study.describe()
    assert any("start, gelu, mixing: a proxy with width 4." in note for note in study.notes)
    assert any("drop_path means nothing to start, gelu, mixing" in note for note in study.notes)
    for run in study.planned():
        prepare([run])
        assert train(run.config, run.folder, data_root=small_images)["state"] == "finished"
    page = (folder / "out" / "report.html").as_posix()
    write_report(study, folder / "out")
    assert "a proxy with width 4" in Path(page).read_text()
    fields = compare_step(StudyResults(study), "gelu").fields
    assert fields == {"network": ("my_models.py:make", "my_models.py:make with gelu_everywhere")}
    assert compare_step(StudyResults(study), "mixing").fields == {"network: mixing": ("its own", True)}
    written, left_out = export_study(study, folder / "exported", small_images)
    assert len(written) == 3
    assert not left_out
    run = study.planned()[-1]
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    own = build_model(run.config.net, num_classes=10, in_channels=1).eval()
    own.load_state_dict(load_weights(run.folder))
    model = load_model(folder / "exported" / "mixing-s0")  # its files are imported already
    assert torch.equal(model(images), own(images))
    assert load_model(folder / "exported" / "mixing-s0", num_classes=5)(images).shape == (2, 5)


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / run_folder.WEIGHTS)


def test_somebodys_function_runs_only_where_it_is_trusted(
    study: Study, folder: Path, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = study.planned()[0]
    prepare([run])
    train(run.config, run.folder, data_root=small_images)
    (written,), _ = export_study(study, folder / "exported", small_images)
    assert isinstance(run.config.net, FactoryNet)
    monkeypatch.delitem(sys.modules, "my_models")
    with pytest.raises(
        UserError, match=r"network 'make': comes from the Python file .* give roadmap\.load_model trust_code"
    ):
        load_model(written)
    assert load_model(written, trust_code=run.config.net.fingerprint)(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    assert "my_models" in sys.modules


# -- requests that cannot be met

MAKE, PROXY, MIXING = "my_models.py:make", "proxy: {width: 4}", "set_args: {mixing: true}"
OURS = 'resnet50: {label: R, result: E, model: "my_models.py:make"}'
REFUSED = {
    (MAKE, "timm:efficientnet_b00"): r"has no network 'efficientnet_b00'\. Did you mean 'timm:efficientnet_b0'",
    (MAKE, "my_models.py:mke"): r"base 'mine': my_models\.py: unknown function 'mke'\. Did you mean 'make'",
    (MAKE, "theirs.py:make"): r"theirs\.py: cannot be read",
    (MAKE, "efficientnet_b0"): r"model is 'efficientnet_b0', but must be timm:NAME, or FILE\.py:FUNCTION",
    (MAKE, "my_models.py:a_word"): "returns str, but must return a torch.nn.Module",
    (MAKE, "my_models.py:flat"): r"cannot look at an image of 1x32x32 \(it maps an image to \(1, 10, 32, 32\)",
    (PROXY, "args: {depth: 2}"): r"my_models\.py:make: cannot be built \(TypeError: .*'depth'",
    (PROXY, "args: {width: {a: 1}}"): "argument 'width' is .* must be a number, a word",
    (BASE, OURS): "base 'resnet50': has a model, but is one of ours",
    (BASE, "effnet: {label: R, result: E}"): r"unknown base 'effnet'.*model: timm:NAME",
    ("step: gelu_everywhere", "step: gelu"): r"step 'gelu' takes a NetConfig, but the network is my_models\.py:make",
    (MIXING, "set_args: {width: 16}"): "rung 'mixing': in a proxy its network is that of 'gelu'",
    (MIXING, f"{MIXING}, match: {{}}"): "has no width that can be fitted",
    (MIXING, f"{MIXING}, step: gelu"): "has step and set_args, but one of them makes it",
    (MIXING, "step: wider_head, proxy: {factor: 2}"): "has a proxy, which belongs to set_args or model",
    (MIXING, "step: set_args"): "'set_args' is a key of its own",
    (MIXING, "set_args: {mine: 4}"): "args of mine are 4, but must be names and values",
}


@pytest.mark.parametrize(("change", "message"), REFUSED.items())
def test_what_cannot_be_a_network_is_said_at_plan(
    change: tuple[str, str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert change[0] in LADDER
    text = LADDER.replace(*change)
    base = next(name for name in ("resnet50", "effnet", "mine") if f"  {name}: {{" in text)
    (folder / "mine.yaml").write_text(text)
    words = ["--base", base, "--steps", str(folder / "mine.yaml"), "--recipe", "smoke", "--runs", str(folder / "runs")]
    assert run_ladder.main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_a_file_that_changed_after_the_plan_is_refused(folder: Path) -> None:
    net = made_by(folder, "make")
    assert isinstance(net, FactoryNet)
    load_module(folder / "my_models.py")
    (folder / "my_models.py").write_text(MODELS + "# another\n")
    sys.modules.pop("my_models")
    with pytest.raises(UserError, match="has changed since the network was planned"):
        build_model(net)
