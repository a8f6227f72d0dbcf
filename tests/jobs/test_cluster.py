import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from roadmap.common.errors import UserError
from roadmap.jobs import slurm_arrays, slurm_queue
from roadmap.jobs.cluster import OURS, Cluster, check_local, default_file, read_cluster
from roadmap.jobs.options import JobOptions
from roadmap.jobs.slurm_arrays import sbatch_text
from tests.conftest import TINY
from tests.processes import Command, Outcome

MakeRecipes = Callable[..., Path]
EVERY_KEY: dict[str, Any] = {
    "partition": "gpu", "account": "lab", "qos": "high", "constraint": "a100&nvlink", "exclude": "node[1-3]",
    "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4, "cpus_per_task": 6, "mem_gb": 60.5, "time_min": 90,
    "max_timeouts": 7, "signal_delay_s": 120, "save_every_min": 5.5, "setup": ["module load cuda", "export A='b c'"],
    "mail_user": "me@lab.org", "mail_type": "END,FAIL", "sbatch": {"nice": 100, "exclusive": True, "hold": False},
}  # fmt: skip
# Any of these, run as a command, makes the file `executed` in the working directory.
ODD = [
    "a b",
    "$(touch executed)",
    "`touch executed`",
    "x; touch executed",
    "x' ; touch executed '",
    '"; touch executed;"',
]
ODD += ["MOST LOGS", "& touch executed", "| touch executed #", "--wrap=touch executed", "\\'; touch executed"]


def refusal(folder: Path, text: str) -> str:
    path = folder / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_cluster(path)
    return str(error.value).replace(str(path), "FILE")


def flags(script: str) -> dict[str, str | bool]:
    """Return the options of sbatch in a script, as a shell would read them."""
    words = [shlex.split(line.removeprefix("#SBATCH ")) for line in script.splitlines() if line.startswith("#SBATCH")]
    assert all(len(line) == 1 for line in words), words
    pairs = [line[0].removeprefix("--").partition("=") for line in words]
    return {name: value if equals else True for name, equals, value in pairs}


def script_of(cluster: Cluster, runs: Path, count: int = 1, **options: Any) -> str:
    how = JobOptions("slurm", runs, "resnet50-tiny-abcdef", cluster, **options)
    return sbatch_text([runs / f"{number}" for number in range(count)], how)


# -- the file


def test_every_key_is_read_and_reaches_the_script(tmp_path: Path) -> None:
    assert EVERY_KEY.keys() == {key.name for key in fields(Cluster)}
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(EVERY_KEY))
    cluster = read_cluster(path)
    assert cluster == Cluster(**EVERY_KEY | {"setup": tuple(EVERY_KEY["setup"])})
    assert cluster.processes == 8
    script = script_of(cluster, tmp_path / "runs", 5, jobs=3)
    found = flags(script)
    expected = {name: EVERY_KEY[name] for name in ("partition", "account", "qos", "constraint", "exclude")}
    expected |= {"nodes": "2", "ntasks-per-node": "4", "gpus-per-node": "4", "cpus-per-task": "6", "mem": "61952MB"}
    expected |= {"time": "90", "signal": "USR2@120", "mail-user": "me@lab.org", "mail-type": "END,FAIL"}
    expected |= {"nice": "100", "exclusive": True, "array": "0-4%3", "open-mode": "append"}
    assert expected.items() <= found.items()
    assert "hold" not in found
    lines = script.splitlines()
    srun = next(number for number, line in enumerate(lines) if line.startswith("srun "))
    assert lines.index("module load cuda") < lines.index("export A='b c'") < srun
    assert {"--cpus-per-task=6", "--kill-on-bad-exit=1"} <= set(shlex.split(lines[srun]))


def test_what_is_left_out_is_left_to_the_cluster(tmp_path: Path) -> None:
    found = flags(script_of(Cluster(), tmp_path))
    left = {"partition", "account", "qos", "constraint", "exclude", "mem", "gpus-per-node", "mail-user", "array"}
    assert left & found.keys() == set()
    assert found["time"] == "240"


MISFITS = {
    "unknown key": ("nodes: 1\npartiton: gpu\n", [["FILE:2: unknown key 'partiton'.", "Did you mean 'partition'?"]]),
    "unknown key, none near": ("zzz: 1\n", [["FILE:1: unknown key 'zzz'.", "Known: partition, account"]]),
    "word for a number": ("nodes: four\n", [["FILE:1: nodes is 'four'", "integer"]]),
    "number for a word": ("account: 12\n", [["FILE:1: account is 12", "string"]]),
    "none at all": ("tasks_per_node: 0\n", [["FILE:1: tasks_per_node is 0", "greater than 0"]]),
    "negative": ("gpus_per_node: -1\n", [["FILE:1: gpus_per_node is -1", "greater than or equal to 0"]]),
    "not finite": ("mem_gb: .inf\n", [["FILE:1: mem_gb is inf", "finite"]]),
    "hardly told": ("signal_delay_s: 5\n", [["FILE:1: signal_delay_s is 5", "greater than or equal to 10"]]),
    "no list": ("setup: module load cuda\n", [["FILE:1: setup is 'module load cuda'", "tuple"]]),
    "list in an option": ("sbatch:\n  nice: [1]\n", [["FILE:1: sbatch sets nice to [1], but a value is"]]),
    "nothing in an option": ("sbatch: {nice: null}\n", [["FILE:1: sbatch sets nice to None, but a value is"]]),
    "all memory": ("mem_gb: 0.0004\n", [["FILE:1: mem_gb is 0.0004", "greater than or equal to 0.001"]]),
    "too much memory": ("mem_gb: 1.0e+308\n", [["FILE:1: mem_gb is 1e+308", "less than or equal to"]]),
    "half a letter": ('sbatch: {comment: "\\ud800"}\n', [["FILE:1: sbatch is", "must be text on one line"]]),
    "short for an option of ours": ("sbatch: {job-nam: x}\n", [["FILE:1: sbatch sets job-nam, which has a key"]]),
    "newline": (
        'partition: "gpu\\ntouch x"\n',
        [[r"FILE:1: partition is 'gpu\ntouch x', but must be text on one line"]],
    ),
    "newline in setup": ('setup: ["true", "a\\nb"]\n', [["FILE:1: setup is ('true', 'a", "must be text on one line"]]),
    "newline in an option": ('sbatch:\n  comment: "a\\rb"\n', [["FILE:1: sbatch is {'comment'", "one line"]]),
    "empty": ("nodes: 1\nqos: ''\n", [["FILE:2: qos is '', but must be text on one line"]]),
    "option of ours": (
        "sbatch: {array: 0-9}\n",
        [["FILE:1: sbatch sets array, which has a key of its own here, or is"]],
    ),
    "option of another key": ("sbatch: {cpus-per-task: 2, mem: 3}\n", [["FILE:1: sbatch sets cpus-per-task, mem, "]]),
    "dashes": ("sbatch: {--nice: 1}\n", [["FILE:1: sbatch has '--nice'", "Write it without the dashes."]]),
    "odd option": ("sbatch: {'nice=1\\n#': 1}\n", [["FILE:1: sbatch has", "no option's long name"]]),
    "a GPU for some": (
        "nodes: 1\ngpus_per_node: 4\ntasks_per_node: 2\n",
        [["FILE:2: gpus_per_node is 4 and tasks_per_node 2", "Give both the same number."]],
    ),
    "no time to save": (
        "time_min: 4\n",
        [["FILE:1: time_min is 4, too short to get from one checkpoint to the next", "need 4.5 min"]],
    ),
    "saved too seldom": (
        "save_every_min: 300\n",
        [["FILE", "time_min is 240", "save_every_min (300 min)", "302.5 min"]],
    ),
    "several at once": (
        "partition: ''\ngpus_per_node: 3\n",
        [["FILE:1: partition is ''"], ["FILE:2: gpus_per_node is 3 and tasks_per_node 1"]],
    ),
    "key twice": ("nodes: 1\nnodes: 2\n", [["FILE:2: key 'nodes' stands twice"]]),
    "empty file": ("", [["FILE: is empty. Its keys: partition, account"]]),
    "no keys": ("- nodes\n", [["FILE: the file is ['nodes']"]]),
    "code": ("setup: !!python/object/apply:os.mkdir [x]\n", [["FILE:1: not valid YAML", "os.mkdir"]]),
}


@pytest.mark.parametrize(("text", "lines"), MISFITS.values(), ids=MISFITS)
def test_a_misfit_is_refused_with_line_key_and_way_out(tmp_path: Path, text: str, lines: list[list[str]]) -> None:
    said = refusal(tmp_path, text).splitlines()
    assert len(said) == len(lines), said
    for line, words in zip(said, lines, strict=True):
        assert re.search(".*".join(map(re.escape, words)), line), line


@pytest.mark.parametrize("flag", sorted(OURS))
def test_options_that_the_jobs_bookkeeping_needs_cannot_be_set_behind_its_back(flag: str) -> None:
    with pytest.raises(ValueError, match=f"sbatch sets {flag}, "):
        Cluster(sbatch={flag: "1"})


def test_a_users_own_file_is_found_and_is_about_the_cluster_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert default_file() == tmp_path / ".config" / "roadmap" / "cluster.yaml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    path = default_file()
    assert path == tmp_path / "xdg" / "roadmap" / "cluster.yaml"
    assert read_cluster(None) == Cluster()
    path.parent.mkdir(parents=True)
    path.write_text("partition: mine\nnodes: 2\n")
    assert read_cluster(None) == Cluster(partition="mine", nodes=2)
    assert read_cluster(None, here=True) == Cluster()
    other = tmp_path / "other.yaml"
    other.write_text("partition: other\n")
    assert read_cluster(other, here=True) == read_cluster(other) == Cluster(partition="other")
    path.write_text("partiton: mine\n")
    with pytest.raises(UserError, match=re.escape(f"{path}:1: unknown key 'partiton'")):
        read_cluster(None)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read \(no such file\)"):
        read_cluster(tmp_path / "nowhere.yaml")


def test_this_machine_is_one_node() -> None:
    check_local(Cluster(tasks_per_node=2))
    with pytest.raises(UserError, match=r"nodes is 2, but --executor local .* Use --executor slurm"):
        check_local(Cluster(nodes=2))


# -- the script


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment whose Slurm is a set of programs that note what they were called with, one argument a line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "squeue", "scontrol"):
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {shlex.quote(str(tmp_path / name))}\n')
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}:{os.defpath}", "SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "1"}


def run_script(script: str, folder: Path, environment: dict[str, str]) -> None:
    work = folder / "work"
    work.mkdir()
    subprocess.run(["bash", "-c", script], cwd=work, env=environment, check=True, timeout=20)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("odd", ODD)
def test_nothing_in_a_name_or_path_is_executed(odd: str, tmp_path: Path, stubs: dict[str, str]) -> None:
    keys = ("partition", "account", "qos", "constraint", "exclude", "mail_user", "mail_type")
    runs = tmp_path / odd.replace("\\", "")
    script = script_of(Cluster(**dict.fromkeys(keys, odd), sbatch={"comment": odd}), runs)  # type: ignore[arg-type]
    (runs / "jobs" / "resnet50-tiny-abcdef-dryrun").mkdir(parents=True)
    run_script(script, tmp_path, stubs)
    found = flags(script)
    assert {found[key.replace("_", "-")] for key in keys} == {odd} == {found["comment"]}
    assert found["output"] == f"{runs}/jobs/resnet50-tiny-abcdef-dryrun/%j_0_log.out"
    arguments = (tmp_path / "srun").read_text().splitlines()
    assert arguments[-1] == f"{runs}/jobs/resnet50-tiny-abcdef-dryrun"


@pytest.mark.parametrize("name", ["a\nb", "50%j", "back\\slash"])
def test_a_runs_folder_that_a_script_cannot_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"jobs cannot name this folder: .* Choose another --runs\."):
        script_of(Cluster(), tmp_path / name)


@pytest.mark.parametrize(
    ("code", "state", "requeued", "killed"),
    [
        (0, "RUNNING", False, False),
        (1, "RUNNING", False, False),
        (75, "RUNNING", True, False),
        (137, "RUNNING", True, True),
        (76, "RUNNING", True, True),
        (140, "RUNNING", True, False),  # USR2, and SIGTERM, before the program listened
        (143, "RUNNING", True, False),
        (143, "COMPLETING", False, False),
        (137, "COMPLETING", False, False),  # it is being ended: cancelled, or out of time
    ],
)
def test_a_job_that_was_killed_or_lost_a_process_goes_back_into_the_queue(
    code: int, state: str, requeued: bool, killed: bool, tmp_path: Path, stubs: dict[str, str]
) -> None:
    programs = Path(stubs["PATH"].split(":")[0])
    (programs / "srun").write_text(f"#!/bin/sh\nexit {code}\n")
    (programs / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    logs = tmp_path / "ru ns" / "jobs" / "resnet50-tiny-abcdef-dryrun"
    logs.mkdir(parents=True)
    environment = stubs | {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    script = script_of(Cluster(), tmp_path / "ru ns")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=False, timeout=20)
    assert done.returncode == code
    asked = (tmp_path / "scontrol").read_text().split() if (tmp_path / "scontrol").exists() else []
    assert asked == (["requeue", "12_3"] if requeued else [])
    assert [file.name for file in logs.iterdir()] == (["12_3.2.killed"] if killed else [])


@pytest.mark.parametrize(("before", "requeued"), [(1, True), (2, False)])
def test_a_job_that_is_killed_before_it_takes_a_run_does_not_come_back_for_ever(
    before: int, requeued: bool, tmp_path: Path, stubs: dict[str, str]
) -> None:
    programs = Path(stubs["PATH"].split(":")[0])
    (programs / "srun").write_text("#!/bin/sh\nexit 132\n")
    (programs / "squeue").write_text("#!/bin/sh\necho RUNNING\n")
    logs = tmp_path / "runs" / "jobs" / "resnet50-tiny-abcdef-dryrun"
    logs.mkdir(parents=True)
    for number in range(before):
        (logs / f"12_3.{number}.killed").touch()
        (logs / f"12_33.{number}.killed").touch()  # of another job
    environment = stubs | {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": str(before)}
    script = script_of(Cluster(), tmp_path / "runs", max_retries=1)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=False, timeout=20)
    assert (tmp_path / "scontrol").exists() == requeued
    assert (logs / f"12_3.{before}.killed").exists()


def test_a_job_whose_folder_is_another_users_by_now_executes_nothing_from_it(
    tmp_path: Path, stubs: dict[str, str]
) -> None:
    script = script_of(Cluster(), tmp_path / "runs")
    logs = tmp_path / "runs" / "jobs" / "resnet50-tiny-abcdef-dryrun"
    logs.mkdir(parents=True)
    (Path(stubs["PATH"].split(":")[0]) / "stat").write_text("#!/bin/sh\necho 12345\n")
    (Path(stubs["PATH"].split(":")[0]) / "stat").chmod(0o755)
    done = subprocess.run(["bash", "-c", script], env=stubs, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (1, f"{logs}: belongs to another user; not started.\n")
    assert not (tmp_path / "srun").exists()


@pytest.mark.parametrize(
    ("partition", "time_min", "refused"),
    [
        (None, 60, False),
        (None, 61, True),
        ("main", 61, True),
        ("long", 10_000, False),
        ("main,days", 1440 + 720, False),
        ("main,days", 1440 + 721, True),
        ("nowhere", 10_000, False),  # that is for Slurm to say
    ],
)
def test_jobs_that_would_wait_for_ever_are_refused(
    partition: str | None, time_min: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "1:00:00|main*\ninfinite|long\n1-12:00:00|days\nn/a|odd\n"
    monkeypatch.setattr(slurm_queue, "_ask", lambda *command: said if command[0] == "sinfo" else None)
    cluster = Cluster(partition=partition, time_min=time_min)
    if refused:
        with pytest.raises(UserError, match=f"time_min is {time_min}, but partition .* ends jobs after"):
            slurm_arrays._check_time(cluster)
    else:
        slurm_arrays._check_time(cluster)
    monkeypatch.setattr(slurm_queue, "_ask", lambda *_: None)
    slurm_arrays._check_time(cluster)  # no answer


def test_a_controller_that_does_not_answer_is_asked_again(tmp_path: Path, stubs: dict[str, str]) -> None:
    programs = Path(stubs["PATH"].split(":")[0])
    (programs / "srun").write_text("#!/bin/sh\nexit 137\n")
    (programs / "sleep").write_text(f"#!/bin/sh\ntouch {shlex.quote(str(tmp_path / 'answers'))}\n")
    (programs / "squeue").write_text(f"#!/bin/sh\n[ -e {shlex.quote(str(tmp_path / 'answers'))} ] && echo RUNNING\n")
    (programs / "sleep").chmod(0o755)
    (tmp_path / "runs" / "jobs" / "resnet50-tiny-abcdef-dryrun").mkdir(parents=True)
    script = script_of(Cluster(), tmp_path / "runs")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=stubs, check=False, timeout=20)
    assert (tmp_path / "scontrol").read_text().split() == ["requeue", "1"]


# -- from the command line


@pytest.fixture
def dry_run(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> Callable[..., Outcome]:
    def start(*more: str, recipe: Path | None = None, action: str = "launch", executor: str = "slurm") -> Outcome:
        options = ["--base", "resnet50", "--recipe", recipe or write_recipes(), "--data", small_images]
        options += ["--executor", executor, "--only", "baseline", "gelu", *more]
        return Command(tmp_path / "work", action, *map(str, options)).wait()

    return start


def test_a_dry_run_needs_no_slurm_and_leaves_nothing(
    dry_run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "cluster.yaml").write_text("partition: gpu\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    for action in ("run", "launch"):
        ended = dry_run("--dry-run", "--cluster", str(tmp_path / "cluster.yaml"), "--jobs", "1", action=action)
        assert (ended.code, ended.err) == (0, "")
        assert flags(ended.out)["partition"] == "gpu"
        assert flags(ended.out)["array"] == "0-1%1"
        assert ended.out.endswith("# 2 runs in 2 jobs. Nothing was submitted.\n")
    ended = dry_run("--dry-run", "--runs-per-job", "2")
    assert "array" not in flags(ended.out)
    assert ended.out.endswith("# 2 runs in 1 jobs. Nothing was submitted.\n")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_recipe_may_have_any_name_that_a_file_may_have(
    dry_run: Callable[..., Outcome], tmp_path: Path, stubs: dict[str, str]
) -> None:
    name = "..$(touch executed); 'a\" b'%j&"
    recipe = tmp_path / "odd" / f"{name}.yaml"
    recipe.parent.mkdir()
    recipe.write_text(yaml.safe_dump(TINY | {"name": name, "plain": name}))
    ended = dry_run("--dry-run", recipe=recipe)
    assert (ended.code, ended.err) == (0, "")
    found = flags(ended.out)
    assert re.fullmatch(r"resnet50-[A-Za-z0-9_.-]+-[0-9a-f]{6}-dryrun", str(found["job-name"]))
    logs = Path(str(found["output"])).parent
    assert logs == tmp_path / "work" / "runs" / "jobs" / str(found["job-name"])
    logs.mkdir(parents=True)
    (tmp_path / "there").mkdir()
    run_script(ended.out, tmp_path / "there", stubs)


@pytest.mark.parametrize(
    ("more", "executor", "message"),
    [
        (["--dry-run"], "local", "--dry-run: prints a Slurm script, so it goes with --executor slurm"),
        (["--runs-per-job", "2"], "local", "--runs-per-job: is for --executor slurm"),
        (["--runs-per-job", "0", "--dry-run"], "slurm", "--runs-per-job: '0' is not a whole number from 1 up"),
        (["--max-retries", "-1"], "local", "--max-retries: '-1' is not a whole number from 0 up"),
        (["--cluster", "nowhere.yaml"], "slurm", r"nowhere\.yaml: cannot be read \(no such file\)"),
        (["--cluster", "../two.yaml"], "local", "nodes is 2, but --executor local has this machine alone"),
        (
            ["--cluster", "../three.yaml", "--dry-run"],
            "slurm",
            r"3 processes \(nodes x tasks_per_node\) share it out in pairs",
        ),
        ([], "slurm", "Slurm did not take the jobs: Could not detect"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_message(
    more: list[str],
    executor: str,
    message: str,
    dry_run: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    (tmp_path / "two.yaml").write_text("nodes: 2\n")
    (tmp_path / "three.yaml").write_text("tasks_per_node: 3\n")
    ended = dry_run(*more, executor=executor)
    assert ended.code == 2
    assert re.fullmatch(r"run_ladder\.py: [^\n]+\n", ended.err), ended.err
    assert re.search(message, ended.err)
