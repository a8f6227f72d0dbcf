"""What several tests of tasks share: settings that train in a moment."""

import re
from pathlib import Path

from roadmap.downstream.task_recipe import known_tasks

TINY = {"steps": 3, "batch_size": 2, "warmup_steps": 0, "train_images": 6, "test_images": 2, "width": 8}


def write_tiny_task(folder: Path) -> Path:
    """Write segmentation.yaml, the shipped recipe with these settings."""
    text = known_tasks()["segmentation"].read_text()
    for name, value in TINY.items():
        text = re.sub(rf"^{name}: .*$", f"{name}: {value}", text, flags=re.MULTILINE)
    path = folder / "segmentation.yaml"
    path.write_text(text)
    return path
