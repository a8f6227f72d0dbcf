"""The command `compare`: the answers of a study, one step closely, or what steps are worth in several studies."""

from argparse import Namespace

from rich.console import Console

from roadmap.cli.commands import Exit
from roadmap.cli.options import (
    base_of,
    compared_sides,
    layout_of,
    margin_of,
    out_of_comparison,
    study_of,
    study_to_report,
    test_of,
    with_seeds_found,
)
from roadmap.cli.report_commands import (
    presentation_of,
    print_verdict_rows,
    published_verdicts_of,
    refuse_study,
    results_of,
    step_of,
)
from roadmap.cli.terminal import print_files, print_json, print_study
from roadmap.common.errors import UserError, unknown


def compare(options: Namespace) -> Exit:
    """Print the answers to all steps, or everything about one step, or what steps are worth in several studies."""
    if vars(options)["with"]:
        return compare_studies(options)
    from analysis.sentences import published_headline
    from analysis.step_comparison import compare_step
    from analysis.terminal import print_step, print_verdicts, say

    if options.record:
        return compare_record(options)
    step = step_of(options)
    if options.against and not step:
        raise UserError("--against: which step is to be compared with it? Say --step RUNG.")
    names = [rung.id for rung in layout_of(options, base_of(options)).rungs]
    for name in filter(None, (step, options.against)):
        if name not in names:
            raise unknown("rung", name, names)
    console = Console()
    if options.published:
        judged = published_verdicts_of(options)
        if options.json:
            print_verdict_rows([judged], base=options.base)
        else:
            say(published_headline(judged), console)
            print_verdicts(judged, console)
        return Exit.OK
    if step:
        options.only = options.until = None
        results = results_of(options, study_of(with_seeds_found(options)))
        comparison = compare_step(results, step, options.against)
        if options.json:
            print_json(comparison.rows())
        else:
            print_step(comparison, console)
        return Exit.OK
    study, shown = study_to_report(options, Console(stderr=options.json))
    results = results_of(shown, study)
    if options.json:
        print_verdict_rows([results.verdicts], base=study.base)
    else:
        say(results.headline, console)
        print_study(study, console)
        print_verdicts(results.verdicts[results.verdicts["metric"] == "top1"], console)
    return Exit.OK


def compare_record(options: Namespace) -> Exit:
    """Print the answers to all steps of a record, or to one, by today's rule."""
    from analysis.report.record import read_record
    from analysis.report.record_results import RecordResults
    from analysis.terminal import print_verdicts, say

    refuse_study(options, "--record")
    results = RecordResults(read_record(options.record), margin=margin_of(options), test=test_of(options))
    step, tables = step_of(options), results.verdicts
    if step:
        if step not in set(tables[0]["step"]):
            raise unknown("step", step, tables[0]["step"], place=str(options.record))
        tables = [rows[rows["step"] == step] for rows in tables]
    if options.json:
        print_verdict_rows(tables, base=results.record.about["base"])
        return Exit.OK
    say(results.headline, Console())
    for rows in tables if step else tables[:1]:
        print_verdicts(rows, Console())
    return Exit.OK


def compare_studies(options: Namespace) -> Exit:
    """Print what each step is worth in several studies, and whether that differs; write it with a figure."""
    from analysis.comparison.differences import StudyComparison
    from analysis.comparison.terminal import print_comparison, print_step_by_study
    from analysis.report.comparison import write_comparison
    from analysis.verdicts import to_json

    if options.against:
        raise UserError("--against: is about one study, not about several. Leave it or --with out.")
    here, others = compared_sides(options)
    comparison = StudyComparison(here, others, margin=margin_of(options), test=test_of(options))
    if (step := step_of(options)) is not None:
        comparison = comparison.about(step)
    if options.json:
        print_json(to_json(comparison.table))
        return Exit.OK
    if step:
        print_step_by_study(comparison, step, Console())
        return Exit.OK
    print_comparison(comparison, Console())
    print_files(write_comparison(comparison, out_of_comparison(options, here, others), presentation_of(options)))
    return Exit.OK
