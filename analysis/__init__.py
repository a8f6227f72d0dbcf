"""From run folders to answers, figures and tables; nothing here imports torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.figures.roadmap import draw_roadmap
    from analysis.report.write import write_report
    from analysis.run_frames import collect
    from analysis.stats.answers import judge
    from analysis.stats.differences import compare_effects
    from analysis.stats.sequential import judge_in_rounds
    from analysis.study_frames import StudyFrames, open_study

_HOMES = {
    "collect": "run_frames",
    "compare_effects": "stats.differences",
    "draw_roadmap": "figures.roadmap",
    "judge": "stats.answers",
    "judge_in_rounds": "stats.sequential",
    "StudyFrames": "study_frames",
    "open_study": "study_frames",
    "write_report": "report.write",
}
__all__ = [
    "StudyFrames",
    "collect",
    "compare_effects",
    "draw_roadmap",
    "judge",
    "judge_in_rounds",
    "open_study",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute '{name}'")
    return getattr(import_module(f"analysis.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
