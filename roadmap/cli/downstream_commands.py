"""Commands on detectors and segmenters: training them (downstream), their costs (verify and measure --downstream)."""

from argparse import Namespace
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console

from roadmap.cli._goals import goal_of
from roadmap.cli._rounds import train_in_rounds
from roadmap.cli.commands import Exit
from roadmap.cli.evaluation_commands import print_measured, work_on_networks
from roadmap.cli.options import base_of, job_options_of, margin_of, study_of, with_seeds_found
from roadmap.cli.terminal import make_table, print_json, print_lines, print_study
from roadmap.common.errors import UserError
from roadmap.recipe import read_recipe

if TYPE_CHECKING:
    from roadmap.downstream.speeds import Speeds
    from roadmap.downstream.tables import Row
    from roadmap.study.plan import PlannedRun, Study
    from roadmap.study.rounds import Rounds

TOLERANCE_GMACS = 1.5  # between our count and what the tables print, which is rounded to 1
NOTES = (
    "ours: convolutions, linear layers and attention. as theirs: with two operations for each output of a BatchNorm,",
    "one for each of a ReLU and of a convolution with a bias, as in the counter that the authors' code uses.",
    "[1] The paper's number leaves out attention's products, and so does the one beside it.",
)


def downstream(options: Namespace) -> Exit:
    """Train a detector or segmenter on every network of a study, as far as that is not done, and test it.

    Their classifiers must be trained, unless the backbones start from other weights than theirs. With a budget, round
    by round where steps are open in the task's first metric. A report and a comparison then show it too.
    """
    from roadmap.downstream.task import plan_task

    study, console = study_of(with_seeds_found(_naming_the_study(options))), Console(stderr=options.json)
    how, planned = job_options_of(options, study, wait=True), study.planned()
    task = plan_task(
        options.task,
        planned,
        from_scratch=options.from_scratch,
        weights=options.weights,
        root=options.task_data,
        processes=how.cluster.processes,
    )
    if not task.needs_trained and (options.budget or options.until_answered):
        raise UserError(
            "--budget: gives seeds to tasks on trained classifiers. Where backbones start from other weights, say "
            "which seeds with --seeds."
        )
    networks = task.networks
    goal = goal_of(options, study, networks, task.metrics[networks.metric].margin)
    print_study(study, console)
    words = f"with task '{task.recipe.name}': {task.recipe.about}"
    if goal is None:
        all_done = work_on_networks(task, planned, how, console, words)
    else:

        def train_round(study: "Study", rounds: "Rounds", runs: list["PlannedRun"]) -> bool:
            named = replace(how, name=f"{how.name}-r{len(rounds.seeds)}")
            work_on_networks(task, runs, named, console, words)
            return True

        _, runs = train_in_rounds(console, options, goal, train_round)
        all_done = bool(runs) and all(networks.is_done(run.folder) for run in runs)
    print_measured(study, console, json=options.json, margin=margin_of(options), margin_of=networks.metric)
    return Exit.OK if all_done else Exit.FAILED


def _naming_the_study(options: Namespace) -> Namespace:
    """Return options that name the study whose networks are the backbones.

    Weights that go into these are no part of the study, unless its recipe trains from given weights itself. Where no
    classifier is used, the images of the classifiers are not needed.
    """
    if options.from_scratch and options.weights:
        raise UserError(
            f"--from-scratch: --weights {options.weights} says what the backbones start from. Leave one of the two out."
        )
    if not options.from_scratch and options.weights is None:
        return options
    pretrained = read_recipe(options.recipe, base_of(options)).pretrained
    return Namespace(**vars(options) | {"weights": options.weights if pretrained else None, "assume_data": True})


def print_counts(options: Namespace) -> Exit:
    """Print detectors' and segmenters' costs beside Tables 3 and 4; 1 where one is off by more than 1.5 G."""
    from roadmap.downstream.counts import count_cost
    from roadmap.downstream.tables import TABLES, read_tables
    from roadmap.downstream.task_recipe import LABELS

    if options.base or options.steps or options.steps_module or options.match:
        raise UserError(
            "verify --downstream: counts the backbones of Tables 3 and 4. Leave out --base, --steps, --match."
        )
    rows = []
    for row in read_tables():
        cost = count_cost(row.framework, row.net, row.size)
        counted = cost.as_printed(has_attention=row.has_attention)
        rows.append(
            {
                "table": TABLES[row.framework],
                "framework": LABELS[row.framework],
                "backbone": row.backbone,
                "pretraining": row.pretraining,
                "size": list(row.size),
                "macs": cost.macs,
                "elementwise": cost.elementwise,
                "attention_macs": cost.attention,
                "as_printed": counted,
                "paper_gmacs": row.gmacs,
                "params": cost.params,
                "paper_params_m": row.params_m,
                "has_attention": row.has_attention,
                "ok": abs(counted / 1e9 - row.gmacs) <= TOLERANCE_GMACS,
            }
        )
    if options.json:
        print_json(rows)
    else:
        _print(rows)
    return Exit.OK if all(row["ok"] for row in rows) else Exit.FAILED


def measure_tables(options: Namespace) -> Exit:
    """Time the inference of Tables 3 and 4's detectors and segmenters side by side, beside the paper's A100."""
    from roadmap.cli.progress import show_steps
    from roadmap.downstream.speeds import LARGEST_ON_CPU, measure_speeds, worth_measuring
    from roadmap.downstream.tables import select_rows

    if options.base or options.steps or options.steps_module or options.match or options.executor == "slurm":
        raise UserError(
            "measure --downstream: times the networks of Tables 3 and 4 on this machine. Leave out --base, --steps, "
            "--match, --executor; --only names rows, such as upernet/ConvNeXt-T, upernet or ConvNeXt-T."
        )
    chosen, console = select_rows(options.only), Console(stderr=options.json)
    timed = worth_measuring(chosen, asked_for=options.only is not None)
    with show_steps(console) as show:
        found = measure_speeds(timed, show=show)
    rows = [_speed_row(row, found) for row in timed]
    if options.json:
        print_json(rows)
        return Exit.OK
    columns = ("", "backbone", "image", "images/s here", "paper's A100")
    cells = dict.fromkeys(map(_speed_cells, rows))  # one line where rows differ in their training alone
    console.print(make_table(columns, cells, numbers=columns[2:]))
    threads = f", {found.threads} threads" if found.threads > 1 else ""
    notes = [
        f"On {found.device}{threads}, {found.precision}, one image at a time, random weights: the median of rounds.",
        "Detectors choose among their boxes and put masks into the image; reading images is not timed.",
    ]
    if len(timed) < len(chosen):
        notes.append(f"Not timed on a CPU: what is above {LARGEST_ON_CPU} G, unless --only names it.")
    print_lines(notes, console)
    return Exit.OK


def _speed_row(row: "Row", found: "Speeds") -> dict[str, Any]:
    """Return what was measured of a row of the tables, beside what it prints, as JSON."""
    from roadmap.downstream.speeds import shape_of
    from roadmap.downstream.tables import TABLES
    from roadmap.downstream.task_recipe import LABELS

    visits = found.visits[shape_of(row)]
    return {
        "table": TABLES[row.framework],
        "framework": LABELS[row.framework],
        "backbone": row.backbone,
        "pretraining": row.pretraining,
        "size": list(row.size),
        "images_per_s": median(visit.images_per_s for visit in visits),
        "rounds": [visit.images_per_s for visit in visits],
        "boxes": visits[0].boxes,
        "paper_a100_images_per_s": row.a100_images_per_s,
        "device": found.device,
        "precision": found.precision,
        "threads": found.threads,
    }


def _speed_cells(row: dict[str, Any]) -> tuple[str, ...]:
    paper = row["paper_a100_images_per_s"]
    return (
        row["framework"],
        row["backbone"],
        "x".join(map(str, row["size"])),
        f"{row['images_per_s']:.3g}",
        "" if paper is None else str(paper),
    )


def _print(rows: list[dict[str, Any]]) -> None:
    console, columns = Console(), ("", "backbone", "image", "ours", "as theirs", "paper", "parameters", "paper's", " ")
    titles = {3: "detectors with 1,000 proposals and 100 boxes", 4: "segmenters"}
    for table, what in titles.items():
        print_lines([f"Table {table}: {what}; multiply-adds (1e9), parameters (millions)"], console)
        # After ImageNet-22K, a network costs what it costs after ImageNet-1K.
        cells = list(dict.fromkeys(_cells(row) for row in rows if row["table"] == table))
        if table == 3:
            cells = [cell[:-2] + cell[-1:] for cell in cells]
        headings = columns if table == 4 else columns[:-2] + columns[-1:]
        drifts = {cell: "red" for *_, cell in cells if cell.startswith("DRIFT")}
        console.print(make_table(headings, cells, numbers=columns[2:8], colours=drifts, tight=True))
        console.print()
    print_lines(NOTES, console)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    drift = (row["as_printed"] / 1e9) - row["paper_gmacs"]
    mark = "ok" if row["ok"] else f"DRIFT {drift:+.1f}"
    return (
        row["framework"],
        row["backbone"],
        "x".join(map(str, row["size"])),
        f"{row['macs'] / 1e9:.1f}",
        f"{row['as_printed'] / 1e9:.1f}",
        str(row["paper_gmacs"]),
        f"{row['params'] / 1e6:.1f}",
        str(row["paper_params_m"]),
        mark if row["has_attention"] else f"{mark} [1]",
    )
