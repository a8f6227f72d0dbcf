import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from roadmap.ladder.ladder import read_ladder
from tests.processes import ROOT, Command, Outcome

MakeRecipes = Callable[..., Path]
RUNGS = [rung.id for rung in read_ladder().rungs]


def run(folder: Path, *arguments: object) -> Outcome:
    return Command(folder, *map(str, arguments)).wait()


# -- an environment that is not the right one


@pytest.mark.parametrize("action", ["run", "verify", "report"])
def test_without_the_packages_there_is_one_message(action: str, tmp_path: Path) -> None:
    command = [sys.executable, "-S", ROOT / "run_ladder.py", action, "--base", "resnet50"]  # without site-packages
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.match(r"run_ladder\.py: needs the package '\w+', which this Python \(", ended.stderr)
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["(2, 7, 18)", "(3, 6, 8)", "(3, 10, 13)"])
def test_an_older_python_is_told_from_which_on(version: str) -> None:
    program = f"import sys, runpy; sys.version_info = {version}; runpy.run_path({str(ROOT / 'run_ladder.py')!r})"
    ended = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("run_ladder.py: needs Python 3.11 or newer; this is ")
    assert ended.stderr.count("\n") == 1


# -- requests that cannot be met


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu --base resnet50", r"unknown command 'rnu'\. Did you mean 'run'\? Known: verify, check"),
        ("plan", r"which base\? Say --base resnet50 or --base resnet200"),
        ("plan --base resnet5", r"unknown base 'resnet5'\. Did you mean 'resnet50'\? Known: resnet50, resnet200"),
        ("verify --base vgg", "unknown base 'vgg'"),
        ("plan --base resnet50 --only gellu", r"unknown rung 'gellu'\. Did you mean 'gelu'\?"),
        ("run --base resnet50 --until kernel_8", r"unknown rung 'kernel_8'\. Did you mean 'kernel_"),
        ("compare --base resnet50 --step depthwise", r"unknown rung 'depthwise'\. Did you mean 'depthwise_conv'\?"),
        ("compare --base resnet50 --step gelu --against nowhere", "unknown rung 'nowhere'"),
        ("compare --base resnet50 --step baseline_original", "where the ladder starts: .* Name one with --against"),
        ("compare --base resnet50 --against gelu", r"--against: which step is to be compared with it\? Say --step"),
        ("compare --base resnet50 --margin x", r"--margin: 'x' is not a number of points from 0 to 100"),
        ("compare --base resnet50 --published --design add-one", r"--design: goes with runs of your own"),
        ("run --base resnet50 --recipe fasion", r"unknown recipe 'fasion'\. Did you mean 'fashion'\?"),
        ("run --base resnet50 --recipe nowhere.yaml", r"nowhere\.yaml: cannot be read \(no such file\)"),
        ("run --base resnet50 --steps nowhere.yaml", r"nowhere\.yaml: cannot be read \(no such file\)"),
        ("run --base resnet50 --executor slrum", r"unknown executor 'slrum'\. .*Known: local"),
        ("launch --base resnet50 --executor debug", r"which would not return\. Use run"),
        ("run --base resnet50 --seeds a", "--seeds: 'a' is not a whole number from 0 up"),
        ("run --base resnet50 --seeds 0 -1", "--seeds: '-1' is not a whole number from 0 up"),
        ("run --base resnet50 --seeds 1.5", "--seeds: '1.5' is not"),
        ("run --base resnet50 --seeds 1 1", "seeds are 1 1, but must be different"),
        ("plan --base resnet50 --device a100 --measure", "--device goes by a data sheet, --measure by this machine"),
        (
            "plan --base resnet50 --recipe imagenet --device a10",
            r"unknown device 'a10'\. Did you mean 'a100'\?",
        ),
        ("plan --base resnet50 --price free", "--price: 'free' is not a number above 0"),
        ("run --base resnet50 --price 1", "--price: goes with --budget or --until-answered"),
        ("run --base resnet50 --budget 60", r"--budget: '60' is no budget\. Say a number and its unit"),
        ("run --base resnet50 --budget 60runs --seeds 0", "--seeds: is a fixed number of seeds"),
        ("launch --base resnet50 --budget 60runs", r"only Slurm's scheduler starts the next round\. Use run"),
        ("plan --base resnet50 --until-answered --budget 0h", r"'0h' is no budget"),
        (
            "compare --base resnet50 --step gelu layer_norm",
            "gelu layer_norm are several steps, but 'compare' shows one",
        ),
        ("plan --base resnet50 --weights nowhere", "recipe 'fashion' starts from random ones"),
        ("diff --recipe fashion --against imagnet", r"unknown recipe 'imagnet'\. Did you mean 'imagenet'\?"),
        ("run --base resnet50 --jobs 0", "--jobs: '0' is not a whole number from 1 up"),
        ("run --base resnet50 --jobs many", "--jobs: 'many' is not"),
        ("launch --base resnet50 --jobs many", "--jobs: 'many' is not"),
        ("run --base resnet50 --jobs 9999999999", "--jobs: '9999999999' is not"),
        (
            "plan --base resnet50 --design leave-on-out",
            r"unknown design 'leave-on-out'\. Did you mean 'leave-one-out'\?",
        ),
        ("plan --base resnet50 --design pairs gelu", "--design pairs: takes two steps, but was given 'gelu'"),
        ("plan --base resnet50 --design pairs gelu gleu", r"unknown step 'gleu'\. Did you mean 'gelu'\?"),
        ("plan --base resnet50 --design add-one gelu", "--design add-one: takes no steps, but was given 'gelu'"),
        ("--base resnet50 paln", r"unknown command 'paln'\. Did you mean 'plan'\?"),
        ("--design add-one gelu plan --base resnet50", "takes no steps, but was given 'gelu'"),
        ("plan gelu --base resnet50", r"'gelu': is for check, not for plan\. Leave it out\."),
        ("--base resnet50 --widht 8", r"--widht: is no option of run\. .*'run --help' lists them\."),
        ("--widht 8 plan", r"--widht: is no option of plan\."),
        ("plan --base resnet50 --untl gelu", r"--untl: is no option of plan\. Did you mean --until\?"),
        ("plan --base resnet50 --recipes smoke", r"--recipes: is no option of plan\. Did you mean --recipe\?"),
        ("run --base resnet50 --pric 1", r"--pric: is no option of run\. Did you mean --price\?"),
        ("status --device=a100", r"--device: is for plan, not for status\. Leave it out\."),
        (
            "status --base resnet50 --margin 1",
            "--margin: is for plan, run, launch, report, compare, judge, downstream, not for status",
        ),
        ("verify --seeds 1", "--seeds: is for plan, run, .*, not for verify"),
        ("plan --base", r"--base: needs a value\. 'run_ladder\.py plan --help' shows what it takes\."),
        ("run --base resnet50 --dry-run --executor local", "--dry-run: prints a Slurm script, so it goes with --exec"),
        ("completion fish", r"unknown shell 'fish'\. Known: bash, zsh\."),
        ("plan --base resnet50 --design add-one --only gelu", r"unknown rung 'gelu'\. Did you mean 'only_gelu'\?"),
        (
            "plan --base resnet50 --design add-one --samples 4",
            "--samples: is for --design orders and fractional, not for add-one",
        ),
        ("plan --base resnet50 --samples 4", "--samples: is for --design orders and fractional, not for ladder"),
        ("plan --base resnet50 --design orders --samples 0", "--samples: '0' is not a whole number from 1 up"),
        ("plan --base resnet50 --design orders --samples 99999", "--samples: is 99999, but must be from 1 to 10,000"),
        ("verify --design add-one", "--design: is for plan, run, .*, not for verify"),
        ("report --base resnet50 --published --only gelu", "--only: goes with runs of your own, not with --published"),
        ("report --base resnet50 --record x --seeds 0", "--seeds: goes with runs of your own, not with --record"),
        ("report --base resnet50 --published --design orders", "--design: goes with runs of your own, not with --pub"),
        ("compare --base resnet50 --design add-one --step gelu", r"unknown rung 'gelu'\. Did you mean 'only_gelu'\?"),
        ("run --base resnet50 --published", "--published: is for report, compare, not for run"),
        ("verify --base resnet50 --step gelu", "--step: is for plan, run, launch, compare, downstream, not for verify"),
        ("run --base resnet50 --recipe smoke --out /dev/null", "/dev/null: cannot be written"),
        ("run --base resnet50 --recipe imagenet", r"image folder\. Say where: --data DIR"),
        ("run --base resnet50 --recipe imagenet --data nowhere", "nowhere: no folder 'train'"),
        ("run --base resnet50 --recipe fashion_full --data nowhere", "nowhere: no train-images-idx3-ubyte here"),
        ("report --base resnet50 --record nowhere", "nowhere"),
        ("run --base resnet50 --recipe smoke --runs /dev/null", "/dev/null/.*: cannot be written"),
        ("measure", r"which base\? Say --base"),
        ("export", r"which base\? Say --base"),
        ("export --base resnet50 --out /dev/null", "/dev/null: cannot be written.*Choose another with --out"),
        ("export --base resnet50 --step gelu", "--step: is for plan, run, launch, compare, downstream, not for export"),
        ("measure --base resnet50 --runs /dev/null", "/dev/null: cannot be written.*Choose another with --runs"),
        ("launch --base resnet50 --recipe smoke --runs /proc/nowhere", "/proc/nowhere/.*: cannot be written"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_message_and_leaves_nothing(
    arguments: str, message: str, tmp_path: Path
) -> None:
    ended = run(tmp_path / "work", *arguments.split())
    assert ended.code == 2
    assert ended.out == ""
    assert re.fullmatch(r"run_ladder\.py: [^\n]+\n", ended.err)
    assert re.search(message, ended.err)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: broken\nlr: [1, 2\n", r"broken\.yaml:\d: not valid YAML"),
        ("name: broken\nlearning_rate: 1\n", "unknown key 'learning_rate'"),
        ("", r"broken\.yaml"),
        ("name: !!timestamp 2020-13-45\n", r"broken\.yaml:1: not valid YAML: .*timestamp"),
        ("lr: !!int x\n", r"broken\.yaml:1: not valid YAML: 'x' is no int"),
        ("just words", r"broken\.yaml"),
    ],
)
@pytest.mark.parametrize("option", ["--recipe", "--steps"])
def test_a_broken_file_is_refused_with_its_place(option: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    ended = run(tmp_path / "work", "plan", "--base", "resnet50", option, tmp_path / "broken.yaml")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    if option == "--recipe" or "unknown key" not in message:
        assert re.search(message, ended.err)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_damaged_data_set_is_refused(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in small_images.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[: 5000 if "images" in file.name else None])
    ended = run(tmp_path / "work", "--base", "resnet50", "--recipe", write_recipes(), "--data", damaged)
    assert ended.code == 2
    assert re.fullmatch(r"run_ladder\.py: .*holds 4984 bytes.*truncated[^\n]*\n", ended.err)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_report_that_cannot_be_written_is_one_message(
    tmp_path: Path, write_recipes: MakeRecipes, small_images: Path
) -> None:
    ended = run(
        tmp_path / "work", "report", "--base", "resnet50", "--recipe", write_recipes(), "--data", small_images,
        "--out", "/dev/null",
    )  # fmt: skip
    assert ended.code == 2
    assert re.fullmatch(r"run_ladder\.py: /dev/null/[^\n]+: cannot be written[^\n]+\n", ended.err)


@pytest.mark.parametrize("words", ["--help", "report --help"])
def test_help_starts_at_once(words: str) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['run_ladder.py', *{words.split()}]\n"
        "try: runpy.run_path('run_ladder.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'timm', 'pandas', 'matplotlib', 'pydantic', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


# -- what there is


def test_verify_prints_every_cell_beside_the_papers(tmp_path: Path) -> None:
    ended = run(tmp_path, "verify", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = ended.rows()
    assert [(row["base"], row["rung"]) for row in rows] == [(b, r) for b in ("resnet50", "resnet200") for r in RUNGS]
    assert all({"base", "rung", "macs", "params", "paper_gmacs", "ok", "note"} <= row.keys() for row in rows)
    assert all(row["ok"] is True for row in rows)
    assert [(row["base"], row["rung"]) for row in rows if row["note"]] == [
        ("resnet50", "layer_norm"),
        ("resnet50", "separate_downsampling"),
    ]
    last = rows[16]
    assert (last["macs"], last["params"], last["paper_gmacs"]) == (4_455_531_264, 28_582_504, 4.49)


def test_verify_finds_a_wrong_cell(tmp_path: Path) -> None:
    text = (ROOT / "steps.yaml").read_text()
    assert text.count("gmacs: 4.10}") == 1
    (tmp_path / "steps.yaml").write_text(text.replace("gmacs: 4.10}", "gmacs: 4.11}"))
    arguments = ("verify", "--base", "resnet50", "--steps", tmp_path / "steps.yaml")
    ended = run(tmp_path / "work", *arguments, "--json")
    assert (ended.code, ended.err) == (1, "")
    wrong = [row for row in ended.rows() if not row["ok"]]
    assert [(row["rung"], row["note"]) for row in wrong] == [("kernel_5", "off by -0.013 G")]
    ended = run(tmp_path / "work", *arguments)
    assert ended.code == 1
    assert re.search(r"kernel_5 .* DRIFT", ended.out)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_who_left_causes_no_noise(buffered: bool, tmp_path: Path) -> None:
    arguments = ["status", "--base", "resnet50", "--recipe", "smoke", "--json", "--runs", str(tmp_path)]
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "run_ladder.py", *arguments],
            cwd=ROOT, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def tiny(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> list[object]:
    return ["--base", "resnet50", "--recipe", write_recipes(seeds=[0, 1]), "--data", small_images]


def test_plan_and_status_before_anything_ran(tmp_path: Path, tiny: list[object]) -> None:
    plan = run(tmp_path / "work", "plan", *tiny)
    assert (plan.code, plan.err) == (0, "")
    assert plan.out.startswith("PROXY, not ImageNet")
    assert "34 runs, 34 to do" in " ".join(plan.out.split())
    rows = run(tmp_path / "work", "plan", *tiny, "--json").rows()
    assert [(row["seed"], row["rungs"]) for row in rows] == [(seed, [rung]) for seed in (0, 1) for rung in RUNGS]
    assert {row["state"] for row in rows} == {"waiting"}
    status = run(tmp_path / "work", "status", *tiny, "--json").rows()
    assert [row["run"] for row in status] == [row["run"] for row in rows]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_plan_of_another_design_names_its_rungs_and_what_the_ladder_does_not_train(
    tmp_path: Path, tiny: list[object]
) -> None:
    arguments = ("plan", *tiny, "--design", "leave-one-out")
    plan = run(tmp_path / "work", *arguments)
    assert (plan.code, plan.err) == (0, "")
    assert "28 runs (24 beyond the ladder's), 28 to do" in " ".join(plan.out.split())
    assert "design leave-one-out" in " ".join(plan.out.split())
    ladder = {row["run"] for row in run(tmp_path / "work", "plan", *tiny, "--json").rows()}
    rows = run(tmp_path / "work", *arguments, "--json").rows()
    shared = {row["rungs"][0] for row in rows if row["run"] in ladder}
    assert (len(rows), shared) == (28, {"all_steps", "without_separate_downsampling"})
    part = run(tmp_path / "work", *arguments, "--only", "all_steps", "without_gelu", "--json").rows()
    assert [row["rungs"] for row in part] == [["all_steps"], ["without_gelu"]] * 2
    assert {row["run"] for row in part} < {row["run"] for row in rows}
    assert list((tmp_path / "work").iterdir()) == []


def test_more_orders_plan_the_runs_of_the_fewer_and_others(tmp_path: Path, tiny: list[object]) -> None:
    few, many = (
        run(tmp_path / "work", "plan", *tiny, "--design", "orders", "--samples", samples, "--json").rows()
        for samples in (1, 2)
    )
    assert len(few) == 2 * (1 + len([rung for rung in RUNGS if not rung.startswith(("baseline", "kernel"))]) + 1)
    assert {row["run"]: row["rungs"] for row in few}.items() <= {row["run"]: row["rungs"] for row in many}.items()


def test_a_pair_is_planned_by_its_two_steps(tmp_path: Path, tiny: list[object]) -> None:
    rows = run(
        tmp_path / "work", "plan", *tiny, "--seeds", 0, "--design", "pairs", "gelu", "layer_norm", "--json"
    ).rows()
    names = ["baseline", "only_gelu", "only_layer_norm", "gelu_and_layer_norm"]
    assert [row["rungs"] for row in rows] == [[name] for name in names]


def test_reports_of_other_designs_have_a_folder_of_their_own(tmp_path: Path, tiny: list[object]) -> None:
    for design in (["leave-one-out"], ["pairs", "gelu", "layer_norm"]):
        ended = run(tmp_path / "work", "report", *tiny, "--design", *design)
        assert (ended.code, ended.err) == (0, "")
        assert "Agreement" not in ended.out
    folders = sorted(folder.name for folder in (tmp_path / "work" / "out").iterdir())
    assert folders == ["resnet50-tiny-leave-one-out", "resnet50-tiny-pairs-gelu-layer_norm"]
    text = (tmp_path / "work" / "out" / folders[0] / "ladder.md").read_text()
    assert text.count("| missing |") == 14


def test_a_rung_of_another_design_is_compared_with_the_one_it_is_judged_against(
    tmp_path: Path, tiny: list[object]
) -> None:
    arguments = ("compare", *tiny, "--design", "leave-one-out", "--step", "without_gelu")
    ended = run(tmp_path / "work", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"what differs\s+all_steps\s+without_gelu", ended.out)
    assert re.search(r"block\.act\s+gelu\s+relu", ended.out)


def test_report_before_anything_ran_shows_every_rung_as_missing(tmp_path: Path, tiny: list[object]) -> None:
    ended = run(tmp_path / "work", "report", *tiny)
    assert (ended.code, ended.err) == (0, "")
    (out,) = (tmp_path / "work" / "out").iterdir()
    assert out.name == "resnet50-tiny"
    assert {"results.csv", "ladder.csv", "ladder.md", "roadmap.png", "roadmap.svg", "roadmap.pdf"} <= {
        file.name for file in out.iterdir()
    }
    text = (out / "ladder.md").read_text()
    assert text.count("| missing |") == 17
    assert "None of the 16 steps is answered" in text


def test_compare_before_anything_ran_shows_fields_and_costs(tmp_path: Path, tiny: list[object]) -> None:
    ended = run(tmp_path / "work", "compare", "--step", "gelu", *tiny)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"block\.act\s+relu\s+gelu", ended.out)
    assert "Neither has a finished run yet" in ended.out
    ended = run(tmp_path / "work", "compare", "--step", "kernel_9", "--against", "kernel_7", *tiny, "--json")
    rows = {row["metric"]: row for row in ended.rows()}
    assert rows["macs"]["delta"] > 0
    assert rows["top1"]["value"] is None


def test_images_of_your_own_are_not_ignored_in_silence(tmp_path: Path) -> None:
    outcome = Command(tmp_path / "work", "plan", "--base", "resnet50", "--data", str(tmp_path)).wait()
    assert outcome.code == 2
    assert "trains on the embedded images, so --data" in outcome.err
