import argparse
import pathlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from roadmap.common.errors import UserError
from roadmap.networks.weight_files import read_weights

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(3, 2), "head.bias": torch.ones(3)}


def trainer_checkpoint() -> dict[str, Any]:
    """Return what the authors' trainer saves: the network beside its optimizer, scaler, options and moving average."""
    model = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    options = argparse.Namespace(model="convnext_tiny", lr=4e-3, output_dir=pathlib.Path("runs"), betas=[0.9, 0.999])
    return {
        "model": WEIGHTS,
        "model_ema": {name: tensor + 1 for name, tensor in WEIGHTS.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0},
        "epoch": 3,
        "args": options,
    }


def with_prefix(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}


FORMS: dict[str, Callable[[], Any]] = {
    "a state dict": lambda: WEIGHTS,
    "under 'model', as the authors publish": lambda: {"model": WEIGHTS},
    "under 'state_dict'": lambda: {"epoch": 1, "state_dict": WEIGHTS},
    "under two keys": lambda: {"model": {"state_dict": WEIGHTS}},
    "of several GPUs": lambda: {"model": with_prefix("module.")},
    "compiled, of several GPUs": lambda: with_prefix("module._orig_mod."),
    "a trainer's checkpoint": trainer_checkpoint,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 2020"])
def test_a_state_dict_is_found_in_what_trainers_save(form: Callable[[], Any], zipped: bool, tmp_path: Path) -> None:
    torch.save(form(), tmp_path / "there.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "there.pth")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("name", ["there.safetensors", "without_an_ending"])
def test_safetensors_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    save_file(with_prefix("module."), tmp_path / name)
    assert read_weights(tmp_path / name).keys() == WEIGHTS.keys()


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("import sys; sys.modules['evil_was_here'] = sys",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"model": WEIGHTS, "hook": Evil()}, "exec"),
        (nn.Linear(2, 3), "torch.nn.modules.linear.Linear"),
    ],
    ids=["code", "a whole module"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 2020"])
def test_objects_that_need_code_are_refused_by_name_and_nothing_is_run(
    content: object, named: str, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "there.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as refusal:
        read_weights(path)
    assert str(refusal.value).startswith(f"{path}: holds objects of {named}, which are not loaded")
    assert "torch.save(model.state_dict(), ...)" in str(refusal.value)
    assert "evil_was_here" not in sys.modules


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "no weights can be read from it"),
        (lambda path: path.write_bytes(b"no weights at all"), "no weights can be read from it"),
        (lambda path: path.write_bytes(pickle.dumps("text")), "no weights can be read from it|no state dict but a str"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "no weights can be read from it"),
        (lambda path: path.unlink(), r"cannot be read \(No such file or directory\)"),
        (lambda path: torch.save([1, 2], path), "holds no state dict but a list"),
        (lambda path: torch.save({}, path), "holds no state dict but an empty one"),
        (lambda path: torch.save({"epoch": 3}, path), "'epoch' is no tensor"),
    ],
    ids=["empty", "text", "a pickle", "cut off", "gone", "a list", "an empty dict", "no weights"],
)
def test_what_holds_no_state_dict_is_refused_with_its_name(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "there.pth"
    torch.save(WEIGHTS, path)
    spoil(path)
    with pytest.raises(UserError, match=message) as refusal:
        read_weights(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
