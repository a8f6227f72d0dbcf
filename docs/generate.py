"""Write what the documentation repeats of the program and the records: docs/commands.md, a picture, parts of pages.

Run it as `make reference` after a change of commands, records or of the rule that gives the answers; a test fails where
it was forgotten. A block stands between `<!-- KIND: ARGUMENT -->` and `<!-- end -->`; `KINDS` says which there are.
"""

import csv
import inspect
import json
import os
import re
from dataclasses import MISSING, is_dataclass
from pathlib import Path

import pandas as pd
from PIL.Image import Image

from analysis.comparison.agreement import agreement_with_paper
from analysis.comparison.differences import StudyComparison
from analysis.comparison.sides import side_of_record
from analysis.evaluations.robustness import Robustness
from analysis.ladder_table import with_answers
from analysis.metrics import METRICS, declared, metric_of
from analysis.report.comparison import difference_cells
from analysis.report.record import read_record
from analysis.report.record_results import RecordResults
from analysis.report.tables import cells_markdown, verdict_markdown
from analysis.sentences import MARKS, headline, more_runs
from analysis.stats.answers import Answer
from analysis.verdicts import FACTOR_COLUMNS, published_verdicts, verdict_table
from docs.drawing import draw_network
from roadmap.cli.parser import command_parsers
from roadmap.common.formats import change, interval
from roadmap.ladder.ladder import read_ladder
from roadmap.networks.block_config import CONV_SLOTS
from roadmap.networks.config import BlockConfig, NetConfig
from roadmap.networks.own_layers import SIZES
from roadmap.study.deviations import DEVIATIONS

ROOT = Path(__file__).parents[1]
DOCS, RECORDS = ROOT / "docs", ROOT / "records"
BLOCK = re.compile(r"(<!-- (\w+): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
SCENES = DOCS / "scenes.png"
RADII = (2.0, 4.0, 8.0)  # of the attacks in records of robustness
_RESIZED = "(N, width, H / stride, W / stride)"
PLACES = {  # of an own layer, and the shape of its output
    **dict.fromkeys(CONV_SLOTS, ("field `layers_after`, behind that convolution", "(N, width, H, W)")),
    "stem": ("field `stem`", _RESIZED),
    "downsample": ("field `downsample`, before the blocks of a stage (of the first only if it has a stride)", _RESIZED),
    "spatial_conv": ("field `spatial_conv`, in the place of the spatial convolution", _RESIZED),
    "shortcut": ("field `shortcut`, in every block", _RESIZED),
    "projection": ("field `shortcut`, in the blocks whose output has another shape than their input", _RESIZED),
    "pool": ("field `pool`", "(N, width, 1, 1)"),
    "head": ("field `head`, behind the pool and the last norm, on (N, width)", "(N, num_classes)"),
}


def write_commands() -> str:
    """Return the page of all commands, from the parser."""
    parts = [
        "# Commands",
        "`run-ladder`, `python run_ladder.py` and `python -m roadmap` are the same program. Without a command, `run`\n"
        "is meant: `run-ladder --base resnet50` trains and reports. The options that name a study (base, recipe,\n"
        "seeds, ...) are the same for every command, so that a command line can be used again with another command.\n\n"
        "This page is made from the program's own help by `make reference`.",
    ]
    os.environ["COLUMNS"] = "100"  # where argparse breaks lines
    group = ""
    for name, heading, _, parser in command_parsers("run-ladder"):
        if heading != group:
            group = heading
            parts.append(f"## {heading[0].upper()}{heading[1:]}")
        parts.append(f"### {name}\n\n```text\n{parser.format_help().strip()}\n```")
    return "\n\n".join(parts) + "\n"


def judge_again(record: str) -> pd.DataFrame:
    """Return the answers to a record's changes of top-1 by today's rule, from its runs."""
    pairs = _pairs(record)
    return verdict_table(pd.read_csv(RECORDS / record / "results.csv"), pairs)


def _pairs(record: str) -> list[tuple[str, str]]:
    recorded = pd.read_csv(RECORDS / record / "verdicts.csv").query("metric == 'top1'")
    return list(zip(recorded["step"], recorded["against"], strict=True))


def write_headline(record: str) -> str:
    """Return the sentence that says which steps of a record are answered."""
    answers = judge_again(record)
    return headline(answers, noun="change" if "-one" in record else "step", more=more_runs(answers))


def write_answers(record: str) -> str:
    """Return that sentence, and the table of a record's answers with what each step costs."""
    recorded = pd.read_csv(RECORDS / record / "verdicts.csv").query("metric == 'top1'")
    costs = recorded[["step", "against", *(name for name in FACTOR_COLUMNS if name in recorded)]]
    table = verdict_markdown(judge_again(record).merge(costs, on=["step", "against"]))
    return f"{write_headline(record)}\n\n{table}"


def write_agreement(record: str) -> str:
    """Return which steps have the same answer in a record of the paper's ladder and in the paper."""
    published = published_verdicts(read_ladder(), "resnet50")
    return agreement_with_paper(with_answers(read_record(RECORDS / record).table, judge_again(record), published))


def write_published(base: str) -> str:
    """Return the answers to the paper's own steps."""
    answers = published_verdicts(read_ladder(), base)
    return f"{headline(answers, more=more_runs(answers))}\n\n{verdict_markdown(answers)}"


def write_difference(records: str) -> str:
    """Return what each step is worth in one record beside another, given as "ONE OTHER"."""
    here, there = (
        side_of_record(RecordResults(read_record(RECORDS / name), margin=METRICS["top1"].margin), name)
        for name in records.split()
    )
    found = StudyComparison(here, [there])
    return f"{found.headline}\n\n{cells_markdown(difference_cells(found.main))}"


def write_robustness(record: str) -> str:
    """Return which steps of a record are answered in each accuracy under attack and corruption."""
    runs = pd.read_csv(RECORDS / record / "robustness.csv").assign(state="finished")
    [found] = declared(Robustness(runs, RADII, reference="baseline"))
    lines = []
    for name, about in found.metrics.items():
        answers = verdict_table(runs, _pairs(record), name)
        lines.append(f"| {about.label} | {headline(answers, more=more_runs(answers))} |")
    return "\n".join(["| metric | answers |", "| --- | --- |", *lines])


def write_tasks(record: str) -> str:
    """Return what each step of a record changes in classification, segmentation and detection, side by side."""
    results = RecordResults(read_record(RECORDS / record), margin=METRICS["top1"].margin)
    tables = {str(rows["metric"].iloc[0]): rows.set_index("step") for rows in results.verdicts}
    shown = [(name, tables[name]) for name in ("top1", "miou", "box_ap")]
    labels = [metric_of(name).label for name, _ in shown]
    lines = [f"| step | {' | '.join(labels)} |", f"| ---{' | ---:' * len(shown)} |"]
    for step in shown[0][1].index:
        rows = [table.loc[step] for _, table in shown]
        cells = [
            f"{change(row.delta, '.2f')} ({interval(row.ci_low, row.ci_high, '.2f')}) {MARKS[Answer(row.answer)]}"
            if row.answer
            else ""
            for row in rows
        ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    said = [f"- {label}: {headline(table.reset_index())}" for label, (_, table) in zip(labels, shown, strict=True)]
    return "\n".join([*said, "", *lines])


def write_deviations(recipes: str) -> str:
    """Return what the paper's recipes do not repeat of the authors' training, of all or of some of them."""
    lines = ["| what differs | the authors | here | recipes |", "| --- | --- | --- | --- |"]
    for each in DEVIATIONS:
        if recipes == "all" or set(recipes.split()) & set(each.recipes):
            names = ", ".join(f"`{name}`" for name in each.recipes)
            lines.append(f"| {each.subject} | {each.authors} | {each.here} | {names} |")
    return "\n".join(lines)


def write_table(path: str) -> str:
    """Return a CSV file as a table."""
    with (ROOT / path).open() as file:
        heading, *rows = csv.reader(file)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))


def write_counts(path: str) -> str:
    """Return what `verify --downstream --json` printed as a table."""
    rows = [json.loads(line) for line in (RECORDS / path).read_text().splitlines()]
    lines = ["| | backbone | image | ours | as theirs | paper | parameters | paper's |", f"|{' --- |' * 8}"]
    for row in rows:
        params = "" if row["paper_params_m"] is None else f"{row['paper_params_m']} M"
        lines.append(
            f"| {row['framework']} | {row['backbone']} | {'x'.join(map(str, row['size']))} | {row['macs'] / 1e9:.1f} | "
            f"{row['as_printed'] / 1e9:.1f} | {row['paper_gmacs']} | {row['params'] / 1e6:.1f} M | {params} |"
        )
    return "\n".join(dict.fromkeys(lines))  # after ImageNet-22K a network costs the same


def quote(place: str) -> str:
    """Return the first paragraph or table of a file that has a text in it, both given as "FILE: TEXT".

    Raises:
        ValueError: If there is none.
    """
    name, _, text = place.partition(": ")
    for part in (ROOT / name).read_text().split("\n\n"):
        if text in part:
            return part.strip("\n")
    raise ValueError(f"{name}: no paragraph has {text!r} in it.")


def write_fields(name: str) -> str:
    """Return the fields of a configuration as a list: the default of each, and what its docstring says."""
    kind = {"NetConfig": NetConfig, "BlockConfig": BlockConfig}[name]
    said = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    lines = []
    for entry in re.split(r"\n    (?=\w+: )", f"\n{said}")[1:]:
        field, _, meaning = " ".join(entry.split()).partition(": ")
        default = kind.__dataclass_fields__[field].default
        shown = "" if default is MISSING or is_dataclass(default) else f" = `{default!r}`"
        lines.append(f"- `{field}`{shown}: {meaning[0].lower()}{meaning[1:]}")
    return "\n".join(lines)


def write_slots(_: str) -> str:
    """Return where an own layer can stand, with what its class is called there, and what it must give."""
    same: dict[tuple[str, ...], list[str]] = {}
    for slot, sizes in SIZES.items():
        same.setdefault((*PLACES[slot], ", ".join(sizes)), []).append(f"`{slot}`")
    return "\n".join(
        f"- {', '.join(slots)}: {place}. Called with `({sizes})`; gives {output}."
        for (place, output, sizes), slots in same.items()
    )


def write_code(path: str) -> str:
    """Return a file as code, under its name."""
    language = {".py": "python", ".yaml": "yaml"}[Path(path).suffix]
    return f"```{language}\n# {path}\n{(ROOT / path).read_text()}```"


KINDS = {
    "fields": write_fields,
    "slots": write_slots,
    "code": write_code,
    "headline": write_headline,
    "answers": write_answers,
    "agreement": write_agreement,
    "published": write_published,
    "difference": write_difference,
    "robustness": write_robustness,
    "table": write_table,
    "tasks": write_tasks,
    "deviations": write_deviations,
    "counts": write_counts,
    "quote": quote,
}


def scenes() -> Image:
    """Return the picture of some scenes and what is in them."""
    from roadmap.downstream.data.task_data import SceneData
    from roadmap.downstream.detection import objects_of
    from roadmap.downstream.pictures import Example, picture_of
    from roadmap.downstream.task_recipe import read_task

    images, targets = next(SceneData(read_task("detection"), 1).test())
    examples = [Example(image, objects_of(target), None) for image, target in zip(images, targets, strict=True)]
    return picture_of(examples[:6])


def generated() -> list[Path]:
    """Return the pages that are generated, wholly or in part."""
    whole = [DOCS / "commands.md", DOCS / "network.svg"]
    return [*whole, *(path for path in sorted(DOCS.glob("*.md")) if BLOCK.search(path.read_text()))]


def write_page(path: Path) -> str:
    """Return one of them as it should be now."""
    if path.name == "commands.md":
        return write_commands()
    if path.name == "network.svg":
        return draw_network()
    return BLOCK.sub(lambda found: f"{found[1]}\n{KINDS[found[2]](found[3])}\n\n{found[4]}", path.read_text())


if __name__ == "__main__":
    for page in generated():
        page.write_text(write_page(page))
    scenes().save(SCENES, optimize=True)
