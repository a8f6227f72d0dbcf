import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

import run_ladder
from analysis.agreement import agreement
from analysis.report.record import read_record
from analysis.report.tables import verdict_markdown
from analysis.robustness import ROBUSTNESS_COLUMNS
from analysis.verdicts import pairs_of, verdict_table
from roadmap.cli import commands as cli_commands
from roadmap.cli.parser import OPTIONS, parse
from roadmap.common.paths import RECIPES
from roadmap.jobs.cluster import read_cluster
from roadmap.ladder.ladder import read_ladder
from roadmap.recipe import read_recipe
from roadmap.robustness.settings import CORRUPTION_NAMES
from tests.samples import LADDERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^(?:.*&& )?python run_ladder\.py([^#\n]*)", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS, ids=str.strip)
def test_every_command_of_the_readme_is_one_that_the_program_knows(command: str) -> None:
    options = parse(shlex.split(command))
    assert options.command in cli_commands.COMMANDS
    if "my_ladder" not in command:
        assert options.base in (None, *(base for ladder in LADDERS.values() for base in ladder.bases))
    assert options.recipe in {path.stem for path in RECIPES.glob("*.yaml")}


def test_every_option_of_the_program_is_in_the_readme() -> None:
    options = {name for name in OPTIONS if name.startswith("--")}
    assert len(options) > 35
    assert not {option for option in options if f"`{option}" not in README}


def test_the_readmes_python_does_what_its_comments_say() -> None:
    example = next(block for block in blocks("python") if "count_macs" in block)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(example, {})
    assert out.getvalue().split() == re.findall(r"# ([\d. ]+)$", example, re.MULTILINE)[0].split()


def test_the_readmes_ladder_can_be_climbed(tmp_path: Path) -> None:
    example = next(block for block in blocks("yaml") if "my_ladder.yaml" in block)
    (tmp_path / "my_ladder.yaml").write_text(example)
    assert len(read_ladder(tmp_path / "my_ladder.yaml").climb("resnet50")) > 1


def test_the_readmes_own_step_is_that_of_its_record_and_keeps_what_a_step_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_steps: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, name in (("python", "my_steps.py"), ("yaml", "grn.yaml")):
        (block,) = (block for block in blocks(language) if block.startswith(f"# {name}"))
        assert block == (ROOT / "records" / "resnet50-fashion-grn" / name).read_text()
        Path(name).write_text(block)
    steps = Path("my_steps.py").read_text().splitlines()
    assert sum(bool(line) and not line.startswith("#") for line in steps) < 20
    (command,) = (command for command in COMMANDS if command.strip().startswith("check grn.yaml"))
    assert run_ladder.main(shlex.split(command)) == 0
    assert re.search(r"^grn +yes +yes +yes +yes +yes +4\.456$", capsys.readouterr().out, re.MULTILINE)


def test_the_readmes_cluster_can_be_asked_for(tmp_path: Path) -> None:
    example = next(block for block in blocks("yaml") if "# cluster.yaml" in block)
    (tmp_path / "cluster.yaml").write_text(example)
    assert read_cluster(tmp_path / "cluster.yaml").processes == 8


def test_the_readmes_verdicts_and_agreement_are_those_of_the_record() -> None:
    folder = ROOT / "records" / "resnet50-fashion"
    told = pd.read_csv(folder / "verdicts.csv").query("metric == 'top1'")
    assert verdict_markdown(told) in README
    assert agreement(read_record(folder).table, read_ladder(), "resnet50") in README
    again = verdict_table(pd.read_csv(folder / "results.csv"), pairs_of(read_ladder().climb("resnet50")))
    same = ["step", "against", "delta", "ci_low", "ci_high", "p_holm", "verdict"]
    pd.testing.assert_frame_equal(told[same].reset_index(drop=True), again[same], check_dtype=False)


@pytest.mark.parametrize(
    "place",
    [
        "**Which of the paper's steps hold",
        "**FLOPs are not cost",
        "On the default proxy, three seeds a rung",
        "On the default proxy, three seeds: [left out]",
        "**What the steps do to robustness",
        "On `fashion_modern`, three",
        "three seeds, against the last rung",
    ],
)
def test_every_change_that_the_readme_speaks_of_is_in_a_record(place: str) -> None:
    paragraph = README[README.index(place) :].split("\n\n")[0]
    records = "".join(path.read_text() for path in (ROOT / "records").glob("*/verdicts.md"))
    numbers = re.findall("[+\N{MINUS SIGN}\N{MULTIPLICATION SIGN}][0-9.]+[0-9]", paragraph)
    assert numbers
    assert not [number for number in numbers if number not in records]


def test_the_record_is_of_the_recipe_as_it_stands() -> None:
    record, recipe = read_record(ROOT / "records" / "resnet50-fashion"), read_recipe("fashion")
    assert record.about["seeds"] == list(recipe.seeds)
    assert record.about["finished"] == 17 * len(recipe.seeds)
    assert f"width / {recipe.width_divisor}" in record.about["chart"]["note"]


def test_every_column_of_robustness_is_in_the_readmes_glossary() -> None:
    glossary = README[README.index("| column of `robustness.csv`") :].split("\n\n")[0]
    assert not [
        name for name in ROBUSTNESS_COLUMNS if f"`{name}`" not in glossary and name not in CORRUPTION_NAMES[1:-1]
    ]


def test_the_readmes_robustness_is_that_of_the_record() -> None:
    folder = ROOT / "records" / "resnet50-fashion-robustness"
    frame = pd.read_csv(folder / "robustness.csv")
    table = next(cells for cells in (folder / "ladder.md").read_text().split("\n\n") if "| PGD-20 8/255 |" in cells)
    assert table in README
    assert len(frame) == 51
    assert not frame["masks_gradients"].any()
    for rung, top1 in frame.groupby("rung")["pgd_8"].mean().items():
        assert re.search(rf"\| {rung} \|.* {top1:.1f} ± ", table)
    whole = [json.loads(line) for line in (folder / "whole_ladder.jsonl").read_text().splitlines()]
    told = {f"({row['delta']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f}))" for row in whole if row["ci_low"]}
    paragraph = README[README.index("The ladder as a whole, its end") :].split("\n\n")[0].replace("\N{MINUS SIGN}", "-")
    found = set(re.findall(r"\([+-][0-9.]+ \([^)]*\)\)", paragraph))
    assert len(found) == 4
    assert found <= told


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link and link[0] != "#"]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
