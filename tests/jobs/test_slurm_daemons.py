"""What the tests take Slurm to do, tried on the one that they start: where jobs run, and what survives which death."""

import getpass
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import wait_for
from tests.slurm import Slurm

pytestmark = pytest.mark.slurm

Submit = Callable[..., str]


@pytest.fixture
def submit(slurm: Slurm, tmp_path: Path) -> Iterator[Submit]:
    """Return a function from a shell's commands to the number of a job that adds its node to `starts` and runs them."""

    def submit(commands: str, *options: str) -> str:
        script = f"echo $SLURMD_NODENAME >> {tmp_path / 'starts'}; {commands}"
        return slurm.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()

    yield submit
    slurm.run("scancel", f"--user={getpass.getuser()}")
    slurm.wait_idle()


def starts(tmp_path: Path) -> list[str]:
    """Return the nodes on which jobs started, in order."""
    file = tmp_path / "starts"
    return file.read_text().split() if file.exists() else []


def state(slurm: Slurm, job: str) -> str:
    """Return a job's state; nothing when Slurm has forgotten it."""
    states = dict(line.split() for line in slurm.run("squeue", "--noheader", "--format=%A %T").splitlines())
    return states.get(job, "")


def wait_for_starts(tmp_path: Path, number: int, timeout_s: float = 30.0) -> None:
    wait_for(lambda: len(starts(tmp_path)) >= number, what=f"{number} starts", timeout_s=timeout_s)


def test_each_node_runs_jobs_of_its_own_and_of_both(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    for node in slurm.nodes:
        submit("", f"--nodelist={node}")
    submit(f"srun sh -c 'echo $SLURMD_NODENAME >> {tmp_path / 'starts'}'", "--nodes=2", "--ntasks=2")
    wait_for_starts(tmp_path, 5)
    assert sorted(starts(tmp_path)) == sorted([*slurm.nodes, *slurm.nodes, slurm.nodes[0]])


def test_a_node_has_more_cores_than_the_host_may_have(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    for _ in range(2 * slurm.cpus):
        submit("sleep 60")
    wait_for_starts(tmp_path, 2 * slurm.cpus)
    assert {node: starts(tmp_path).count(node) for node in slurm.nodes} == dict.fromkeys(slurm.nodes, slurm.cpus)


@pytest.mark.slow
def test_a_requeued_job_runs_again_under_its_number(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    """It ends at SIGTERM, and waits as long as a credential is good for (10 s) and one more."""
    job = submit("sleep 60")
    wait_for_starts(tmp_path, 1)
    slurm.run("scontrol", "requeue", job)
    wait_for_starts(tmp_path, 2, timeout_s=20)
    assert state(slurm, job) == "RUNNING"


def test_a_job_survives_the_controller(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    """It does once the controller has saved that it runs, which takes five seconds; before, it may be lost."""
    job = submit("sleep 60")
    wait_for_starts(tmp_path, 1)
    slurm.wait_until_saved(job)
    slurm.kill_controller()
    slurm.start_controller()
    assert state(slurm, job) == "RUNNING"
    slurm.run("scancel", job)
    slurm.wait_idle()
    assert len(starts(tmp_path)) == 1


def test_a_job_survives_the_daemon_of_its_node(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    """It runs under a process of its own, to which the new daemon returns.

    Only where the daemon stays away (10 s and up to half a minute more) is the node down and the job requeued, to start
    on another node while its processes still run on the old one: nobody ends them before the daemon is back.
    """
    node = slurm.nodes[1]
    job = submit("sleep 4; touch " + str(tmp_path / "ended"), f"--nodelist={node}")
    wait_for_starts(tmp_path, 1)
    slurm.kill_node(node)
    slurm.start_node(node)
    wait_for(lambda: not state(slurm, job), what="the job's end", timeout_s=30)
    slurm.wait_idle()
    assert (tmp_path / "ended").exists()
    assert starts(tmp_path) == [node]
