"""What can happen to a ladder on a cluster, made to happen to a real Slurm at random moments, many times.

    python -m tests.faults --times 20 --out records/faults

makes each fault at least so often and holds every result, to the last bit, against that of a run that nothing
happened to. A fault whose line is in the table already is not made again, so the command can be stopped and goes on.
"""

import argparse
import csv
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from roadmap.data.datasets import describe_data
from roadmap.jobs.cluster import Cluster
from roadmap.jobs.launcher import launch, prepare
from roadmap.jobs.options import JobOptions
from roadmap.jobs.status import Queue, is_at_work, look_at_queue, standing
from roadmap.recipe import Recipe
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, attempts_of
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.checkpoints import checkpoints
from roadmap.training.loop import train
from tests.conftest import NET, TINY, small_file_system, write_small_images, write_tiny
from tests.processes import Command, outcome, worker_of
from tests.samples import SHORT_LADDER
from tests.slurm import Slurm, why_not
from tests.stops import AtNumber, of_the_run, stop_and_continue

COLUMNS = ("fault", "times", "runs", "preempted", "died", "launched again", "seconds", "equal")
STOPPED_WORKER = "worker stopped before each change to files, then continued"
DISK = "48m"


@dataclass
class Victim:
    """A ladder of one rung and many seeds on a Slurm, and what is happening to it."""

    slurm: Slurm
    folder: Path
    seeds: int
    epochs: int = 90
    cluster: Cluster = field(default_factory=lambda: Cluster(time_min=20, save_every_min=0.01))
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.images, self.steps = self.folder / "images", self.folder / "steps.yaml"
        write_small_images(self.images)
        self.steps.write_text(SHORT_LADDER)
        self.recipe = write_tiny(self.folder / "recipes", epochs=self.epochs, drop_path=0.1, mixup=0.8)
        self.runs = self.folder / "runs"

    def planned(self, runs: Path | None = None) -> list[PlannedRun]:
        ladder, seeds = self.steps, range(self.seeds)
        spec = StudySpec("resnet50", self.recipe, ladder, only=["short"], seeds=seeds, data_root=self.images)
        return plan_study(replace(spec, runs=runs or self.runs)).planned()

    def options(self) -> JobOptions:
        name = f"victim-{time.monotonic_ns()}"
        return JobOptions("slurm", self.runs, name, self.cluster, data_root=self.images, max_retries=50, wait=False)

    def undisturbed(self, folder: Path) -> list[object]:
        """Return the outcomes of the same runs in this process, trained where they are not yet."""
        runs = self.planned(folder)
        for run in prepare(runs):
            train(run.config, run.folder, data_root=self.images)
        return [outcome(run.folder) for run in runs]

    def queue(self) -> Queue:
        return look_at_queue(self.runs)

    def launch(self) -> bool:
        """Start jobs for the runs that nobody is at; return whether there were any."""
        queue = self.queue()
        left = [
            run for run in self.planned() if not run_folder.is_done(run.folder) and not is_at_work(run.folder, queue)
        ]
        if left and queue.answers:
            launch([run.folder for run in prepare(left)], self.options())
        return bool(left)

    def is_done(self) -> bool:
        return all(run_folder.is_done(run.folder) for run in self.planned())

    def running(self) -> list[PlannedRun]:
        """Return the runs whose training is under way."""
        queue = Queue()
        return [
            run for run in self.planned() if standing(run.folder, queue).state == "running" and checkpoints(run.folder)
        ]

    def pick(self) -> tuple[PlannedRun, Worker] | None:
        """Return a running run and who trains it."""
        found = self.running()
        if not found:
            return None
        run = self.draw.choice(found)
        worker = worker_of(run.folder)
        return (run, worker) if worker else None

    def ends(self) -> Counter[str]:
        return Counter(a.end for run in self.planned() for a in attempts_of(run.folder) if a.end)


Fault = Callable[[Victim], bool]


def kill_process(worker: Worker) -> bool:
    try:
        os.kill(worker.pid, 9)
    except ProcessLookupError:
        return False
    return True


def kill_worker(victim: Victim) -> bool:
    """SIGKILL of a process that trains."""
    found = victim.pick()
    return bool(found and kill_process(found[1]))


def requeue(victim: Victim) -> bool:
    """`scontrol requeue` by the administrator: no signal, no warning."""
    return _to_job(victim, "scontrol", "requeue")


def signal_preemption(victim: Victim) -> bool:
    """The signals that submitit takes for a preemption: SIGTERM, then USR2."""
    found = victim.pick()
    if not found or not found[1].job:
        return False
    for name in ("TERM", "USR2"):
        # Given up after a second: scancel tries on and on while the job ends, and would hit its next start.
        command = ["timeout", "1", "scancel", f"--signal={name}", found[1].job]
        subprocess.run(command, capture_output=True, check=False, env=os.environ | victim.slurm.environment)
    return True


def preempt(victim: Victim) -> bool:
    """A job of a partition with a higher priority takes a whole node."""
    if not victim.running():
        return False
    node = victim.draw.choice(victim.slurm.nodes)
    return _try(
        victim, "sbatch", "--partition=main", "--exclusive", f"--nodelist={node}", "--output=/dev/null",
        "--wrap=sleep 1",
    )  # fmt: skip


def end_time(victim: Victim) -> bool:
    """The time limit comes."""
    return _to_job(victim, "scontrol", "update", "TimeLimit=1", job="JobId=")


def kill_slurmd(victim: Victim) -> bool:
    """A node's daemon is killed and started again, with or without its jobs; for good measure, late."""
    if not victim.running():
        return False
    node = victim.draw.choice(victim.slurm.nodes)
    victim.slurm.kill_node(node, jobs=victim.draw.random() < 0.5)
    time.sleep(victim.draw.choice([0.5, 3, 14]))
    victim.slurm.start_node(node)
    time.sleep(5)
    return True


def kill_slurmctld(victim: Victim) -> bool:
    """The controller is killed and started again."""
    if not victim.running():
        return False
    victim.slurm.kill_controller()
    time.sleep(victim.draw.uniform(0, 8))
    victim.slurm.start_controller()
    return True


def fill_disk(victim: Victim) -> bool:
    """The disk is full for some seconds, whatever is being written."""
    if not victim.running():
        return False
    filler = victim.runs / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    time.sleep(victim.draw.uniform(0.5, 6))
    filler.unlink()
    return True


def damage_checkpoint(victim: Victim) -> bool:
    """A run is killed, and its last checkpoint is cut off or has a flipped bit when it comes back."""
    if not (found := victim.pick()) or not kill_process(found[1]):
        return False
    time.sleep(0.2)
    last = checkpoints(found[0].folder)[:1]
    if not last:
        return False
    content = bytearray(last[0].read_bytes())
    place = victim.draw.randrange(len(content))
    if victim.draw.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 1 << victim.draw.randrange(8)
    last[0].write_bytes(content)
    return True


def halve_result(victim: Victim) -> bool:
    """A machine dies while it writes a result: half of it is there, and the checkpoints are gone."""
    done = [run for run in victim.planned() if run_folder.is_done(run.folder)]
    if not done:
        return False
    path = victim.draw.choice(done).folder / run_folder.RESULT
    path.write_bytes(path.read_bytes()[: victim.draw.randrange(path.stat().st_size)])
    return True


def _to_job(victim: Victim, *command: str, job: str = "") -> bool:
    found = victim.pick()
    return bool(found and found[1].job and _try(victim, *command, f"{job}{found[1].job}"))


def _try(victim: Victim, *command: str) -> bool:
    """Give Slurm a command; False where it comes too late, for a job that has just ended."""
    try:
        victim.slurm.run(*command)
    except RuntimeError as error:
        print(f"  {error}", flush=True)
        return False
    return True


FAULTS: dict[str, Fault] = {
    "SIGKILL of a worker": kill_worker,
    "scontrol requeue": requeue,
    "preemption signal": signal_preemption,
    "preemption by another job": preempt,
    "time limit": end_time,
    "slurmd killed and restarted": kill_slurmd,
    "slurmctld killed and restarted": kill_slurmctld,
    "full disk": fill_disk,
    "checkpoint damaged": damage_checkpoint,
    "result half written": halve_result,
}
# What a fault needs that the others do not.
CLUSTERS = {
    "preemption by another job": Cluster(partition="low", time_min=20, save_every_min=0.01, signal_delay_s=10),
    "time limit": Cluster(time_min=2, save_every_min=0.01, signal_delay_s=10),
}
EPOCHS = {"time limit": 300}
PAUSE_S = {"preemption by another job": 6.0, "time limit": 1.0}


def disturb(
    victim: Victim, faults: Sequence[Fault], times: int, *, pause_s: float = 2.0, patience_s: float = 1800.0
) -> tuple[int, int]:
    """Let a ladder run to its end while faults happen to it; return how many did, and how often it was launched again.

    The faults come in turn, at random moments with a mean pause between them, until there were `times` of them. Where
    nothing is in the queue any more and runs are missing, somebody launches again, as a user would.
    """
    done, launched = 0, 0
    victim.launch()
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if done < times:
            time.sleep(victim.draw.uniform(0, 2 * pause_s))
            done += faults[done % len(faults)](victim)
        else:
            time.sleep(0.5)
        if victim.is_done():
            return done, launched
        queue = victim.queue()
        if queue.answers and not any(is_at_work(run.folder, queue) for run in victim.planned()):
            launched += victim.launch()
    raise AssertionError(f"not done after {patience_s:.0f} s: {victim.slurm.run('squeue')}")


def campaign(name: str, times: int, slurm: Slurm, work: Path) -> dict[str, object]:
    """Make one fault happen at least `times` times, to as many ladders as that takes; return its line of the table."""
    start, happened, runs, launched, equal = time.monotonic(), 0, 0, 0, True
    ends: Counter[str] = Counter()
    seeds, epochs = 16, EPOCHS.get(name, 90)
    draw = random.Random(name)
    reference = Victim(slurm, work / f"reference-{epochs}", seeds, epochs)
    expected = reference.undisturbed(reference.folder / "undisturbed")
    while happened < times:
        folder = Path(tempfile.mkdtemp(dir=work))
        victim = Victim(slurm, folder / "victim", seeds, epochs, CLUSTERS.get(name, reference.cluster), draw)
        with small_file_system(victim.runs, DISK) if name == "full disk" else nullcontext():
            did, again = disturb(victim, [FAULTS[name]], times - happened, pause_s=PAUSE_S.get(name, 1.0))
            happened, launched, runs = happened + did, launched + again, runs + seeds
            ends += victim.ends()
            equal = equal and [outcome(run.folder) for run in victim.planned()] == expected
        print(f"{name}: {happened} times, {runs} runs, equal: {equal}, {dict(ends)}, {folder}", flush=True)
    seconds = round(time.monotonic() - start)
    values = (name, happened, runs, ends["preempted"], ends["died"], launched, seconds, "yes" if equal else "NO")
    return dict(zip(COLUMNS, values, strict=True))


def kill_drivers(executor: str, times: int, slurm: Slurm, work: Path) -> dict[str, object]:
    """SIGKILL of the command that waits, again and again, until a last one may finish."""
    start, happened, runs, equal = time.monotonic(), 0, 0, True
    draw = random.Random(executor)
    ends: Counter[str] = Counter()
    while happened < times:
        victim = Victim(slurm, Path(tempfile.mkdtemp(dir=work)) / "victim", 4, draw=draw)
        if not runs:
            expected = victim.undisturbed(victim.folder / "undisturbed")
        options = ["--steps", victim.steps, "--base", "resnet50", "--only", "short", "--recipe", victim.recipe]
        options += ["--data", victim.images, "--executor", executor, "--seeds", *range(4), "--runs", victim.runs]
        if executor == "slurm":
            settings = victim.folder / "cluster.yaml"
            settings.write_text("time_min: 20\nsave_every_min: 0.01\n")
            options += ["--cluster", settings]
        while not victim.is_done() and happened < times:
            command = Command(victim.folder / "work", *map(str, options), cores=2)
            time.sleep(draw.uniform(0.5, 9))
            if command.process.is_alive():
                command.process.kill()
                happened += 1
            command.process.join()
        last = Command(victim.folder / "work", *map(str, options), cores=2).wait(600)
        runs += 4
        ends += victim.ends()
        equal = equal and last.code == 0 and [outcome(run.folder) for run in victim.planned()] == expected
        print(f"SIGKILL of the driver, {executor}: {happened} times, equal: {equal}, {dict(ends)}", flush=True)
    name = f"SIGKILL of the driver ({executor})"
    seconds = round(time.monotonic() - start)
    # Each command that was killed was started again.
    values = (name, happened, runs, ends["preempted"], ends["died"], happened, seconds, "yes" if equal else "NO")
    return dict(zip(COLUMNS, values, strict=True))


def stop_workers(work: Path) -> dict[str, object]:
    """SIGSTOP of a worker before each of its changes; another takes over and finishes; SIGCONT of the first."""
    start, equal, ends = time.monotonic(), True, Counter[str]()
    images = work / "images"
    write_small_images(images)
    recipe = Recipe(**TINY | {"epochs": 1})
    config = RunConfig(NET, recipe, describe_data(recipe, images), 0)
    train(config, work / "undisturbed", data_root=images)
    for number in itertools.count():
        place = work / str(number)
        stopped, left = stop_and_continue(config, place, images, AtNumber(number))
        folder = place / config.id
        same = of_the_run(folder) == left and outcome(folder) == outcome(work / "undisturbed")
        equal = equal and same
        ends += Counter(attempt.end for attempt in attempts_of(folder) if attempt.end)
        print(f"stopped before change {number}: {stopped}, equal: {same}, {dict(ends)}", flush=True)
        if not stopped:
            break
    seconds = round(time.monotonic() - start)
    values = (STOPPED_WORKER, number, number, ends["preempted"], ends["died"], 0, seconds, "yes" if equal else "NO")
    return dict(zip(COLUMNS, values, strict=True))


def main() -> int:
    """Make the faults that the table does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("records/faults"))
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    table = options.out / "faults.csv"
    lines = list(csv.DictReader(table.open())) if table.exists() else []
    work = Path(tempfile.mkdtemp(prefix="faults-"))

    def is_left(name: str) -> bool:
        return name not in {line["fault"] for line in lines} and name in (options.only or [name])

    def add(line: dict[str, object]) -> None:
        lines.append({key: str(value) for key, value in line.items()})
        options.out.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)

    if is_left(STOPPED_WORKER):
        add(stop_workers(work))
    with_slurm: dict[str, Callable[[int, Slurm, Path], dict[str, object]]] = {
        **{name: partial(campaign, name) for name in FAULTS},
        **{f"SIGKILL of the driver ({executor})": partial(kill_drivers, executor) for executor in ("slurm", "local")},
    }
    left = [name for name in with_slurm if is_left(name)]
    if left and (reason := why_not()):
        print(f"cannot start a Slurm here: {reason}")
        return 2
    slurm = Slurm(work / "slurm")
    try:
        if left:
            slurm.start()
            os.environ.update(slurm.environment)
        for name in left:
            add(with_slurm[name](options.times, slurm, work))
            slurm.wait_idle(120)
    finally:
        slurm.stop()
    return 0 if all(line["equal"] == "yes" for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
