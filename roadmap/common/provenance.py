"""Where and with what a run was planned."""

import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from roadmap.common.paths import ROOT


def provenance() -> dict[str, Any]:
    """Return commit, versions, host, command and time."""
    return {
        "commit": find_commit(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        "python": platform.python_version(),
        "host": platform.node(),
        "processor": processor(),
        "command": sys.argv,
        "planned_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def find_commit() -> str | None:
    """Return the commit of this code, marked where the tree has changes; None where there is no git to ask."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def gpu() -> str | None:
    """Return the GPU's name; None where there is none, or torch is not loaded, so that nothing is computed on it."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


def processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
