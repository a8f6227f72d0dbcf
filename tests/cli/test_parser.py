import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from roadmap.cli import main as program
from roadmap.cli.commands import COMMANDS, Exit
from roadmap.cli.parser import FIRST_STEPS, OPTIONS, command_parsers, make_parser, parse, split_command
from roadmap.common.errors import UserError
from tests.processes import ROOT


@pytest.mark.parametrize(
    ("words", "command", "seeds"),
    [
        ("", "run", None),
        ("--base resnet50", "run", None),
        ("plan --base resnet50 --seeds 0 1 2", "plan", ["0", "1", "2"]),
        ("--base resnet50 --seeds 0 1 2 plan", "plan", ["0", "1", "2"]),
        ("--seeds 0 1 --base resnet50 plan --recipe smoke", "plan", ["0", "1"]),
        ("--seeds=3 --validate status", "status", ["3"]),
        ("--match plan", "plan", None),
        ("--steps run plan", "plan", None),  # a file of that name
        ("--runs plan", "run", None),
    ],
)
def test_options_stand_before_or_after_the_command(words: str, command: str, seeds: list[str] | None) -> None:
    options = parse(words.split())
    assert (options.command, options.seeds) == (command, seeds)


def test_a_word_that_is_no_value_is_the_command_whatever_it_is() -> None:
    assert split_command(["--base", "resnet50", "rnu"]) == ("rnu", ["--base", "resnet50"])
    assert split_command(["--json", "check", "my_ladder.yaml"]) == ("check", ["--json", "my_ladder.yaml"])
    assert split_command(["--only", "plan_b", "gelu"]) == (None, ["--only", "plan_b", "gelu"])


@pytest.mark.parametrize(
    "words", ["check mine.yaml --base vgg16", "check --base vgg16 mine.yaml", "--base vgg16 check mine.yaml"]
)
def test_check_takes_its_ladder_before_or_after_its_options(words: str) -> None:
    options = parse(words.split())
    assert (options.command, options.ladder, options.base) == ("check", "mine.yaml", "vgg16")


def test_every_option_has_a_value_for_every_command() -> None:
    for name in set(COMMANDS) - {"completion"}:
        options = vars(parse([name, *(["mine.csv"] if name == "judge" else [])]))
        assert {option.dest for option in OPTIONS.values()} <= options.keys()
        assert (options["recipe"], options["runs"], options["executor"]) == ("fashion", Path("runs"), "local")


@pytest.mark.parametrize(
    ("words", "executor"), [("run --dry-run", "slurm"), ("run --dry-run --executor local", "local"), ("run", "local")]
)
def test_a_dry_run_is_one_of_slurm(words: str, executor: str) -> None:
    assert parse(words.split()).executor == executor


@pytest.mark.parametrize("command", sorted({"plan", "status", "cancel", "report", "compare"}))
def test_the_words_that_started_a_study_name_it_to_what_looks_at_it(command: str) -> None:
    words = "--base resnet50 --executor slurm --cluster c.yaml --jobs 4 --runs-per-job 2 --max-retries 1"
    assert parse([command, *words.split()]).executor == "slurm"


def test_a_command_line_is_made_again_from_its_options() -> None:
    words = "launch --base resnet50 --only a b --budget 8h --jobs 4 --executor slurm --tensorboard --seeds 0 1"
    again = COMMANDS["launch"].command_line(parse(words.split()))
    assert parse(again) == parse(words.split())
    assert "--runs" not in again


def test_no_option_is_declared_twice_or_of_no_command() -> None:
    taken = {option.name for command in COMMANDS.values() for option in command.all_options()}
    assert taken == set(OPTIONS)
    for command in COMMANDS.values():
        names = [option.name for option in command.all_options()]
        assert len(names) == len(set(names)), command.name


def lines_of_help(words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as end:
        parse([*words.split(), "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_fits_a_screen_and_has_all_its_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = lines_of_help(command, capsys)
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    shown = {found[0] for line in lines if (found := re.match(r"  --[a-z-]+", line))}
    groups = COMMANDS[command].options
    assert {name.strip() for name in shown} == {o.name for group in groups.values() for o in group if not o.is_word}
    assert all(f"{heading}:" in lines for heading in groups)


def test_the_programs_help_lists_commands_in_groups_and_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of_help("", capsys)
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    at = {name: index for index, line in enumerate(lines) for name in COMMANDS if line.startswith(f"  {name} ")}
    assert list(at) == list(COMMANDS)
    for command in COMMANDS.values():
        assert lines.index(f"{command.group}:") < at[command.name]
        assert command.help in lines[at[command.name]]
    assert len(FIRST_STEPS) == 3
    for words in FIRST_STEPS:
        parse(words.split())
    assert lines_of_help("--base resnet50", capsys) == lines


def test_a_reference_of_the_commands_can_be_made_from_the_parser() -> None:
    listed = list(command_parsers())
    assert [name for name, *_ in listed] == list(COMMANDS)
    for name, group, does, parser in listed:
        assert (group, does) == (COMMANDS[name].group, COMMANDS[name].help)
        assert parser.format_help().startswith(f"usage: run_ladder.py {name} ")
    with pytest.raises(UserError, match="unknown command 'pln'"):
        make_parser().parse_args(["pln"])


def test_the_program_has_one_name_for_each_way_to_start_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run-ladder", "paln"])
    assert program.console() == Exit.REFUSED
    assert capsys.readouterr().err.startswith("run-ladder: unknown command 'paln'")
    ended = subprocess.run(
        [sys.executable, "-m", "roadmap", "plan", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: python -m roadmap plan ")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["run-ladder"] == "roadmap.cli.main:console"


def test_every_command_has_a_function_that_carries_it_out() -> None:
    for command in COMMANDS.values():
        assert callable(command.function())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_prints_a_script_that_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert program.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "--references" in script
    assert all(name in script for name in COMMANDS)


def test_completion_says_what_it_needs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert program.main(["completion", "bash"]) == 2
    assert "needs shtab. Install it: pip install" in capsys.readouterr().err
