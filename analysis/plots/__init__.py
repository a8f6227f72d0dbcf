"""Figures beside the roadmap: verdicts, effects, accuracy against cost, curves, models. Frames in, figures out."""

from analysis.drawing import Words
from analysis.plots.bubbles import draw_bubbles
from analysis.plots.curves import draw_curves
from analysis.plots.effects import draw_effects
from analysis.plots.forest import draw_forest
from analysis.plots.robustness import draw_robustness
from analysis.plots.tradeoff import draw_tradeoff, pareto_front

__all__ = [
    "Words",
    "draw_bubbles",
    "draw_curves",
    "draw_effects",
    "draw_forest",
    "draw_robustness",
    "draw_tradeoff",
    "pareto_front",
]
