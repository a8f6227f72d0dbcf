"""Figures beside the roadmap: verdicts, effects, accuracy against cost, curves, models. Frames in, figures out."""

from analysis.figures.bubbles import draw_bubbles
from analysis.figures.curves import draw_curves
from analysis.figures.design_effects import draw_effects
from analysis.figures.forest import draw_forest
from analysis.figures.robustness import draw_robustness
from analysis.figures.rounds import draw_rounds
from analysis.figures.style import Words
from analysis.figures.tasks import draw_tasks
from analysis.figures.tradeoff import draw_tradeoff, pareto_front

__all__ = [
    "Words",
    "draw_bubbles",
    "draw_curves",
    "draw_effects",
    "draw_forest",
    "draw_robustness",
    "draw_rounds",
    "draw_tasks",
    "draw_tradeoff",
    "pareto_front",
]
