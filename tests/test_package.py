"""The installed package: a wheel, in an environment of its own, works in any folder without the checkout."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from roadmap import StudySpec, plan_study, train
from roadmap.common.provenance import processor
from tests.processes import ROOT

GOLDEN = ROOT / "tests" / "golden" / "smoke.csv"
GOLDEN_PROCESSOR = "Intel(R) Xeon(R) Processor"  # others round differently
CARRIED = ("steps.yaml", "recipes", "ladders")  # in roadmap/shipped; beside the packages in a checkout
VALUES = ("top1", "top5", "nll", "ece", "train_loss")
# Run in the new environment: the weights that were exported give a network, here and in timm.
LOAD = """\
import sys
import timm, torch
import analysis, roadmap, roadmap.export.timm_registry
ours = roadmap.load_model(sys.argv[1])
timms = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
images = torch.randn(2, *ours.pretrained_cfg["input_size"])
with torch.no_grad():
    assert torch.equal(ours.eval()(images), timms(images))
print(roadmap.__file__, analysis.__file__, sep="\\n")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[Path]:
    """Return the files of the checkout that Git knows of, or would."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    return [Path(name) for name in listed if (ROOT / name).is_file()]


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel of a source folder, without the network."""
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ".", cwd=source)
    (built,) = folder.iterdir()
    return built


def install(wheel: Path, place: Path, installer: str) -> Path:
    """Install a wheel into a new environment that sees this one's other packages; return its folder of programs."""
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    python = place / "bin" / "python"
    offline = ("--no-deps", "--no-index")
    if installer == "uv":
        run("uv", "pip", "install", *offline, "--python", python, wheel, cwd=place.parent)
    else:
        run(sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel, cwd=place.parent)
    (site_packages,) = place.glob("lib/python*/site-packages")
    # Folders that such a file names are searched for packages, and not for further such files: an editable installation
    # of the checkout stays out.
    (site_packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return place / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


def test_a_wheel_carries_every_file_of_the_packages_the_ladders_and_the_recipes(wheel: Path) -> None:
    carried = contents(wheel)
    wanted = {
        str(path if path.parts[0] in ("roadmap", "analysis") else Path("roadmap", "shipped", path)): path
        for path in tracked()
        if path.parts[0] in ("roadmap", "analysis", *CARRIED)
    }
    assert len(wanted) > 100
    assert {name for name in carried if ".dist-info/" not in name} == set(wanted)
    assert not [name for name, path in wanted.items() if carried[name] != (ROOT / path).read_bytes()]


def test_a_wheel_built_from_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path / "sdist", cwd=ROOT)
    (sdist,) = (tmp_path / "sdist").iterdir()
    (tmp_path / "source").mkdir()
    run("tar", "-xf", sdist, "-C", tmp_path / "source", cwd=tmp_path)  # tarfile has a safe way since 3.11.4 only
    (source,) = (tmp_path / "source").iterdir()
    assert contents(build_wheel(source, tmp_path / "again")) == contents(wheel)


@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")
def test_uv_installs_the_wheel_too(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, tmp_path / "environment", "uv")
    assert "resnet50" in run(programs / "run-ladder", "verify", "--base", "resnet50", "--json", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute on an idle machine; a busy one still has to end it
def test_the_installed_program_trains_the_smoke_ladder_to_the_last_digit_and_exports_it(
    wheel: Path, tmp_path: Path
) -> None:
    programs, here = install(wheel, tmp_path / "environment", "pip"), tmp_path / "empty"
    here.mkdir()
    study = ("--recipe", "smoke", "--base", "resnet50")
    run(programs / "run-ladder", *study, cwd=here)
    report = here / "out" / "resnet50-smoke"
    assert (report / "report.html").is_file()
    golden, rows = pd.read_csv(GOLDEN), pd.read_csv(report / "results.csv")
    same = list(golden.columns) if processor() == GOLDEN_PROCESSOR else ["rung", "run", "state"]
    pd.testing.assert_frame_equal(rows[same], golden[same], check_exact=True)
    spec = StudySpec("resnet50", recipe="smoke", only=["separate_downsampling"], runs=tmp_path / "runs")
    (again,) = plan_study(spec).planned()
    ours, theirs = train(again), rows.set_index("rung").loc["separate_downsampling"]
    assert [ours[name] for name in VALUES] == [theirs[name] for name in VALUES]

    run(programs / "python", "-m", "roadmap", "export", *study, "--only", "separate_downsampling", cwd=here)
    (export,) = (report / "export").iterdir()
    assert json.loads((export / "config.json").read_text())["architecture"]
    homes = run(programs / "python", "-c", LOAD, export, cwd=here).splitlines()
    assert all(Path(home).is_relative_to(tmp_path / "environment") for home in homes)
