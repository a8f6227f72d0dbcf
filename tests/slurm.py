"""A real Slurm of two nodes on this one host, for tests: a controller, nodes and a munge of its own.

Nothing of it lies in /etc or /run and its ports are free ones, so that it meddles with no Slurm of the machine's and
several test sessions can have one each. It needs neither root nor systemd nor cgroups. Slurm 22.05 is the one tried.
"""

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = {
    "munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "setpriv": "util-linux"
}  # fmt: skip
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # where ordinary users' shells do not look
PORTS = range(20_000, 32_000)  # below those that the kernel gives to outgoing connections

# A credential's seconds are what a requeued job waits (121 unless told). Two partitions: a job of `main` preempts one
# of `low`, which is then sent the signal that it asked for with --signal.
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={short}/munge,cred_expire=6
StateSaveLocation={folder}/state
SlurmdSpoolDir={short}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmctldSyslogDebug=quiet
SlurmdSyslogDebug=quiet
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
JobRequeue=1
KillWait=2
MinJobAge=2
SlurmdTimeout=10
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=2 GraceTime=0
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=5
"""
NODE = (
    "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} State=UNKNOWN RealMemory={memory} "
    "CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1"
)


def why_not() -> str | None:
    """Return why this machine cannot run a Slurm for tests, or None where it can."""
    for program, package in PROGRAMS.items():
        if not shutil.which(program, path=PATH):
            return f"{program} is not installed (Debian's package {package})"
    return None


class Slurm:
    """A Slurm of two nodes on this host, everything in one folder.

    A node's name is an address of this host's, 127.0.0.1 and on: who looks for the node by its name finds it, with
    nothing added to /etc/hosts. It may promise more cores than the host has.
    """

    def __init__(self, folder: Path, *, nodes: int = 2, cpus: int = 4) -> None:
        self.folder = folder.resolve()
        self.nodes = [f"127.0.0.{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._short: Path | None = None

    def start(self) -> None:
        """Start munge, the controller and the nodes; return when every node is idle."""
        try:
            self._configure()
            self._start_munge()
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
            self.wait_idle()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all that runs, jobs included, and return when it is gone."""
        for daemon in self._daemons.values():
            daemon.terminate()
        for name in list(self._daemons):
            self._end(name, within_s=10)
        for node in self.nodes:
            self._kill_jobs(node)
        if self._short:
            shutil.rmtree(self._short)
            self._short = None

    def start_controller(self) -> None:
        """Start the controller, with the state that it had; return when it answers."""
        self._start("slurmctld", "slurmctld", "-D")
        self._wait(lambda: "is UP" in self.run("scontrol", "ping"), "the controller to answer", 60)

    def kill_controller(self) -> None:
        """Kill the controller: what the last five seconds brought, even a whole job, it may not have saved."""
        self._end("slurmctld")

    def wait_until_saved(self, job: str) -> None:
        """Wait until the controller has saved that a job runs, which it does every five seconds."""
        comment = f"{job}-runs."  # a change after its start, to be found in what is saved
        self.run("scontrol", "update", f"JobId={job}", f"Comment={comment}")
        saved = self.folder / "state" / "job_state"
        self._wait(lambda: saved.exists() and comment.encode() in saved.read_bytes(), f"saved {job}", 60.0)

    def start_node(self, node: str) -> None:
        """Start a node's daemon; `wait_idle` waits for it."""
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str, *, jobs: bool = False) -> None:
        """Kill a node's daemon, which its jobs survive; with `jobs` all that runs there, as a power failure does."""
        self._end(node)
        if jobs:
            self._kill_jobs(node)

    def run(self, *command: str) -> str:
        """Run a command of Slurm's and return what it prints."""
        done = subprocess.run(command, env=self._environ(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def wait_idle(self, timeout_s: float = 60.0) -> None:
        """Return when every node is up and has no job."""
        idle = sorted(f"{node} idle" for node in self.nodes)
        sinfo = ("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t")
        self._wait(lambda: sorted(self.run(*sinfo).splitlines()) == idle, "every node to be idle", timeout_s)

    def _configure(self) -> None:
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        # Sockets: their path may have 107 letters, and munge wants its own where any user may reach it.
        self._short = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self._short.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        port, *ports = free_ports(1 + len(self.nodes))
        memory = 1000 * self.cpus
        nodes = [
            NODE.format(node=node, host=host, port=port, memory=memory, cpus=self.cpus)
            for node, port in zip(self.nodes, ports, strict=True)
        ]
        for node in self.nodes:
            (self._short / node).mkdir()
        user = pwd.getpwuid(os.geteuid()).pw_name
        places = {"folder": self.folder, "short": self._short}
        conf = CONF.format(host=host, port=port, user=user, nodes="\n".join(nodes), **places)
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # one it must have; nothing uses it

    def _start_munge(self) -> None:
        assert self._short
        key, at = self.folder / "munge.key", self._short / "munge"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {"key": key, **{name: self.folder / f"munged.{name}" for name in ("pid", "log", "seed")}}
        options = [f"--{name}-file={file}" for name, file in files.items()]
        self._start("munged", "munged", "--foreground", "--force", f"--socket={at}", *options)
        self._wait(at.exists, "munge's socket", 60)

    def _start(self, name: str, *command: str) -> None:
        assert name not in self._daemons
        # Told to end where this process dies, and deaf to Ctrl-C. Steps inherit the node's name: `_kill_jobs`.
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=self._environ() | {"SLURMD_NODENAME": name},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _end(self, name: str, within_s: float = 0.0) -> None:
        daemon = self._daemons.pop(name)
        try:
            daemon.wait(within_s)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _kill_jobs(self, node: str) -> None:
        """Kill what runs on a node, whose processes all have its name and our configuration in their environment."""
        marks = {f"SLURM_CONF={self.environment['SLURM_CONF']}".encode(), f"SLURMD_NODENAME={node}".encode()}
        while found := [pid for pid in _processes() if marks <= _variables(pid)]:
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        why = ""
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except RuntimeError as error:
                why = f": {error}"
            if ended := [name for name, daemon in self._daemons.items() if daemon.poll() is not None]:
                raise RuntimeError(f"{', '.join(ended)} ended while waiting for {what}{why}\n{self._tails()}")
            time.sleep(0.05)
        raise RuntimeError(f"waited {timeout_s:.0f} s for {what}{why}\n{self._tails()}")

    def _tails(self) -> str:
        files = sorted(self.folder.glob("*.out"))
        return "\n".join(f"{file}:\n" + "\n".join(file.read_text().splitlines()[-10:]) for file in files)

    def _environ(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not _of_slurm(name)} | {
            "PATH": PATH, **self.environment
        }  # fmt: skip


def _of_slurm(variable: str) -> bool:
    return variable.startswith(("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_"))


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _variables(pid: int) -> set[bytes]:
    """Return the environment that a process started with; nothing where it has ended or is another user's."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens at, from those that no outgoing connection is given."""
    free: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == number:
            break
    return free


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm for the whole session, to which this process's Slurm commands go."""
    if why := why_not():
        pytest.skip(why)
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    slurm.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(_of_slurm, list(os.environ)):
            patch.delenv(name)
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        try:
            yield slurm
        finally:
            slurm.stop()
