"""From the command line's options to what the library takes; whatever is wrong with them is said at once.

Nothing is printed here but which rungs and seeds a report shows, and nothing is started.
"""

from roadmap.cli.options.compared import compared_sides, out_of_comparison
from roadmap.cli.options.jobs import job_options_of, jobs_of, loggers_of, own_metrics_of, robustness_settings_of
from roadmap.cli.options.reports import (
    ladder_behind,
    out_of,
    studies_beside,
    study_behind,
    study_to_report,
    with_rungs_before,
)
from roadmap.cli.options.studies import (
    base_of,
    design_of,
    ladder_of,
    layout_of,
    match_of,
    study_of,
    with_all_seeds_found,
    with_first_seeds,
    with_rounds_found,
    with_seeds_found,
    words_of,
)
from roadmap.cli.options.values import amount_of, margin_of, test_of, whole

__all__ = [
    "amount_of",
    "base_of",
    "compared_sides",
    "design_of",
    "job_options_of",
    "jobs_of",
    "ladder_behind",
    "ladder_of",
    "layout_of",
    "loggers_of",
    "margin_of",
    "match_of",
    "out_of",
    "out_of_comparison",
    "own_metrics_of",
    "robustness_settings_of",
    "studies_beside",
    "study_behind",
    "study_of",
    "study_to_report",
    "test_of",
    "whole",
    "with_all_seeds_found",
    "with_first_seeds",
    "with_rounds_found",
    "with_rungs_before",
    "with_seeds_found",
    "words_of",
]
