"""Tests of single changes (stand-in until the statistician's)."""

from analysis.stats.welch import holm, mcnemar_p, paired_p

__all__ = ["holm", "mcnemar_p", "paired_p"]
