"""README.md and docs/: code runs, commands parse, links lead somewhere, and numbers are those of the records."""

import contextlib
import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import run_ladder
from analysis.metrics import NAMES_TAKEN
from docs.build import FIRST, links_of
from docs.generate import BLOCK, generated, write_page
from roadmap.cli.commands import COMMANDS
from roadmap.cli.parser import parse
from roadmap.common.paths import RECIPES
from roadmap.data.batches import load_data
from roadmap.jobs.cluster import read_cluster
from roadmap.ladder.ladder import read_ladder
from roadmap.ladder.own_steps import load_steps
from roadmap.ladder.steps import NET_STEPS
from roadmap.metrics.own_metrics import find_metric
from roadmap.networks.cost import count_params
from roadmap.networks.families import BASES
from roadmap.networks.model import build_model
from roadmap.robustness.settings import CORRUPTION_NAMES
from roadmap.runs.config import RunConfig
from roadmap.runs.metrics import values_of
from tests.conftest import NET
from tests.processes import ROOT
from tests.samples import LADDERS

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text() for path in PAGES}
PROGRAM = re.compile(r"^(?:.*&& )?(?:run-ladder|python run_ladder\.py)([^#\n]*)", re.MULTILINE)
GENERATED = ("commands.md",)
SIGNED = re.compile("[+\N{MINUS SIGN}\N{MULTIPLICATION SIGN}][0-9.]+[0-9]")


def blocks(language: str) -> list[str]:
    """Return the code of a language in README.md and docs/, without what two pages share."""
    found = [re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for text in TEXTS.values()]
    return list(dict.fromkeys(block for of_page in found for block in of_page))


def block_with(language: str, text: str) -> str:
    """Return the only code of a language that has a text in it."""
    (block,) = (block for block in blocks(language) if text in block)
    return block


ALL_COMMANDS = sorted({words.strip() for block in blocks("bash") for words in PROGRAM.findall(block)})


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_is_one_that_the_program_knows(command: str) -> None:
    options = parse(shlex.split(command))
    assert options.command in COMMANDS
    if "my_ladder" not in command and "my_models" not in command:
        assert options.base in (None, *(base for ladder in LADDERS.values() for base in ladder.bases))
    assert options.recipe in {path.stem for path in RECIPES.glob("*.yaml")}


def test_every_command_of_the_program_is_shown_in_use() -> None:
    shown = {parse(shlex.split(command)).command for command in ALL_COMMANDS}
    assert set(COMMANDS) - shown <= {"cancel", "completion"}  # named in a sentence


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_what_is_generated_is_as_the_program_and_the_records_are_now(path: Path) -> None:
    assert write_page(path) == path.read_text(), "Run `make reference`."


def test_the_readme_stays_short_and_shows_a_newcomer_two_commands() -> None:
    assert len(README.read_text().splitlines()) <= 170
    setup = "python3 -m venv .venv && . .venv/bin/activate && pip install -e "
    first, second = re.findall(r"^```bash\n(.*?)\n```", README.read_text(), re.MULTILINE | re.DOTALL)[:2]
    assert first == f"{setup}. && python run_ladder.py --base resnet50"
    assert second == f"{setup}'.[dev]' && python -m pytest"


def test_every_page_is_on_the_site_and_the_readme_or_another_page_leads_to_it() -> None:
    site = (ROOT / "zensical.toml").read_text()
    linked = {link for page in PAGES for link in links_of(page) if link != page}
    pages = [path for path in PAGES if path != README]
    assert len(pages) > 10
    assert not [path.name for path in pages if path not in linked or f'"docs/{path.name}"' not in site]


# -- code


@pytest.mark.parametrize(
    "text",
    [
        "read_ladder().climb",
        "widths = (24, 56",
        "plan_study",
        "import judge",
        "compare_effects",
        "open_study",
    ],
)
def test_an_example_prints_what_its_comment_says(text: str) -> None:
    example = block_with("python", text)
    (promised,) = re.findall(r"^print\(.*\)  # (.+)$", example, re.MULTILINE)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(example, {})
    assert out.getvalue().strip() == promised


def test_the_example_of_a_logger_is_one_that_runs_can_call() -> None:
    names: dict[str, object] = {}
    exec(block_with("python", "wandb.init"), names)
    assert callable(names["start"])


def test_the_example_of_a_ladder_can_be_climbed(tmp_path: Path) -> None:
    (tmp_path / "my_ladder.yaml").write_text(block_with("yaml", "# my_ladder.yaml"))
    assert len(read_ladder(tmp_path / "my_ladder.yaml").climb("resnet50")) > 1


def test_the_example_of_an_own_step_is_that_of_its_record_and_keeps_what_a_step_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_steps: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, name in (("python", "my_steps.py"), ("yaml", "grn.yaml")):
        block = block_with(language, f"# {name}\n")
        assert block == (ROOT / "records" / "resnet50-fashion-grn" / name).read_text()
        Path(name).write_text(block)
    steps = Path("my_steps.py").read_text().splitlines()
    assert sum(bool(line) and not line.startswith("#") for line in steps) < 20
    (command,) = (command for command in ALL_COMMANDS if command.startswith("check grn.yaml"))
    assert run_ladder.main(shlex.split(command)) == 0
    assert re.search(r"^ *grn +yes +yes +yes +yes +yes +4\.456 *$", capsys.readouterr().out, re.MULTILINE)


def test_the_examples_of_own_metrics_measure_a_network(
    tmp_path: Path, tiny_run: Callable[..., RunConfig], small_images: Path
) -> None:
    data = load_data(tiny_run(), small_images, "cpu")
    network = build_model(NET, num_classes=10, in_channels=1).eval()
    for name in ("my_metrics.py", "calibration_metrics.py"):
        (tmp_path / name).write_text(block_with("python", f"# {name}\n"))
        function = re.findall(r"^def (\w+)", (tmp_path / name).read_text(), re.MULTILINE)[0]
        measure, metrics = find_metric(f"{tmp_path / name}:{function}", NAMES_TAKEN).load()
        assert all(0 < value <= 100 for value in values_of(measure(network, data), metrics).values())
        sys.modules.pop(Path(name).stem)
    (tmp_path / "my_metrics.yaml").write_text(block_with("yaml", "# my_metrics.yaml"))
    ladder = read_ladder(tmp_path / "my_metrics.yaml")
    assert ladder.climb("resnet50") == read_ladder().climb("resnet50")
    assert ladder.metrics == (str(tmp_path / "my_metrics.py:inverted"),)


def test_the_example_of_an_own_head_is_a_step_that_makes_a_network(tmp_path: Path, own_steps: None) -> None:
    (tmp_path / "my_head.py").write_text(block_with("python", "# my_head.py"))
    assert load_steps(tmp_path / "my_head.py") == ["two_layer_head"]
    net = NET_STEPS["two_layer_head"](BASES["resnet50"], ratio=3)
    assert count_params(net) - count_params(BASES["resnet50"]) > 10_000_000


def test_the_example_of_networks_that_are_not_ours_keeps_what_steps_must_and_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_steps: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, name in (("python", "my_models.py"), ("python", "my_model_steps.py"), ("yaml", "my_models.yaml")):
        Path(name).write_text(block_with(language, f"# {name}\n"))
    for command in (command for command in ALL_COMMANDS if "my_models.yaml" in command):
        assert run_ladder.main(shlex.split(command)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "wider: a proxy with width 12. resnet18, efficientnet: of its own size" in said


def test_the_example_of_a_cluster_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(block_with("yaml", "# cluster.yaml"))
    assert read_cluster(tmp_path / "cluster.yaml").processes == 8


def test_no_other_code_is_shown() -> None:
    """Those with weights are executed by the tests of exports."""
    tested = (
        "count_macs",
        "plan_study",
        "import judge",
        "compare_effects",
        "open_study",
        "wandb.init",
        "my_steps.py",
        "my_metrics.py",
        "calibration_metrics.py",
        "my_head.py",
        "my_models.py",
        "my_model_steps.py",
        "ladders/examples/",
        "change_blocks",
        "load_model",
        "convnext_tiny.safetensors",
    )
    assert not [block for block in blocks("python") if not any(text in block for text in tested)]
    tested = (
        "# my_ladder.yaml",
        "# my_models.yaml",
        "# grn.yaml",
        "# my_metrics.yaml",
        "# cluster.yaml",
        "# ladders/examples/",
    )
    assert not [block for block in blocks("yaml") if not any(text in block for text in tested)]


# -- numbers


def test_every_change_that_the_results_speak_of_is_in_a_record() -> None:
    prose = BLOCK.sub("", TEXTS["results.md"])
    records = "".join(path.read_text() for path in (ROOT / "records").glob("*/verdicts.md"))
    whole = (ROOT / "records" / "resnet50-fashion-robustness" / "whole_ladder.jsonl").read_text().splitlines()
    for row in map(json.loads, whole):
        records += " ".join(f"{row[name]:+.2f}" for name in ("delta", "ci_low", "ci_high") if row[name] is not None)
    found = SIGNED.findall(prose)
    assert len(found) > 10
    assert not [number for number in found if number not in records.replace("-", "\N{MINUS SIGN}")]


def test_every_accuracy_that_the_results_speak_of_is_in_a_record() -> None:
    prose = " ".join(BLOCK.sub("", TEXTS["results.md"]).split())
    ladders = "".join(path.read_text() for path in (ROOT / "records").glob("*/ladder.md"))
    found = re.findall(r"\d+\.\d\d ± \d+\.\d\d|\d\.\d\d M", prose)
    assert len(found) > 4
    assert not [number for number in found if f" {number} " not in ladders]


def test_the_networks_of_the_robustness_table_do_not_mask_their_gradients() -> None:
    frame = pd.read_csv(ROOT / "records" / "resnet50-fashion-robustness" / "robustness.csv")
    assert len(frame) == 51
    assert not frame["masks_gradients"].any()
    assert "No run masks its gradients." in " ".join(TEXTS["results.md"].split())
    for rung, top1 in frame.groupby("rung")["pgd_8"].mean().items():
        assert re.search(rf"\| {rung} \|.* {top1:.1f} ± ", TEXTS["results.md"])


def test_every_column_of_robustness_is_explained() -> None:
    columns = pd.read_csv(ROOT / "records" / "resnet50-fashion-robustness" / "robustness.csv").columns
    names = {re.sub(r"_[\d.]+$", "_R", name) for name in columns} - set(CORRUPTION_NAMES[1:-1])
    assert not [name for name in names if f"`{name}`" not in TEXTS["robustness.md"]]


# -- links


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, *(ROOT / name for name in FIRST[1:])], ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(path: Path) -> None:
    assert not [link for link in links_of(path) if not link.is_file()]
    for page, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", path.read_text()):
        assert anchor in anchors(path.parent / page if page else path), f"{page}#{anchor}"
