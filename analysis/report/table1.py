"""Table 1 of the paper, counted again: its models' parameters and multiply-adds beside those that are printed."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd

from analysis.figures import draw_bubbles
from analysis.figures.roadmap import save_figure
from analysis.figures.style import Words
from analysis.report.record import PROVENANCE, read_provenance
from analysis.report.tables import TIMES, cells_markdown
from roadmap.common.files import write_atomically, write_json
from roadmap.common.provenance import provenance
from roadmap.ladder.table1 import Model

if TYPE_CHECKING:
    from roadmap.measuring.model_speeds import Speeds

# The columns of the table: name -> meaning and unit.
MODEL_COLUMNS = {
    "model": "the paper's name",
    "timm": "the architecture's name in timm",
    "kind": "convnet or transformer",
    "training": "imagenet1k, or imagenet22k before it",
    "image_size": "height and width of the images in pixels",
    "params": "parameters, counted",
    "paper_params_m": "parameters as printed, 1e6",
    "macs": "multiply-adds for one image, counted: convolutions, linear layers, attention's matrix products",
    "attention_macs": "those of them in attention's matrix products",
    "paper_gmacs": "multiply-adds as printed, 1e9",
    "images_per_s": "images per second of inference, measured here, in the fastest round; empty where it was not",
    "paper_v100_images_per_s": "as printed, on a V100",
    "top1": "top-1 accuracy on ImageNet-1K as printed, percent",
    "as_printed": "whether both counts are the printed ones when rounded like them",
    "note": "why they are not, as far as that is known",
}
# What rounding may take from what is printed: 1e6 parameters, 1e9 multiply-adds.
HALF_MILLION, HALF_TENTH = 0.5, 0.0500001
TRAINING = {"imagenet1k": "ImageNet-1K trained", "imagenet22k": "ImageNet-22K pre-trained"}


def models_table(
    models: Sequence[Model],
    *,
    show: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> pd.DataFrame:
    """Count models and return a row for each with the columns of `MODEL_COLUMNS`.

    Args:
        models: Rows of the paper's table.
        show: Called before each with the number done, that of all, and what is at hand.
    """
    from roadmap.networks.cost import count_attention_macs, count_macs, count_params

    rows = []
    for number, model in enumerate(models):
        show(number, len(models), f"counting {model.label} at {model.image_size}")
        params, macs = count_params(model.net), count_macs(model.net, model.image_size)
        off = abs(params / 1e6 - model.params_m) > HALF_MILLION or abs(macs / 1e9 - model.gmacs) > HALF_TENTH
        rows.append(
            {
                "model": model.label,
                "timm": model.timm,
                "kind": model.kind,
                "training": model.training,
                "image_size": model.image_size,
                "params": params,
                "paper_params_m": model.params_m,
                "macs": macs,
                "attention_macs": count_attention_macs(model.net, model.image_size),
                "paper_gmacs": model.gmacs,
                "images_per_s": None,
                "paper_v100_images_per_s": model.v100_images_per_s,
                "top1": model.top1,
                "as_printed": not off,
                "note": model.note,
            }
        )
    table = pd.DataFrame(rows, columns=list(MODEL_COLUMNS))
    return table.astype({"images_per_s": float, "paper_v100_images_per_s": float})


def with_speeds(table: pd.DataFrame, speeds: "Speeds") -> pd.DataFrame:
    """Return the table with what was measured: the fastest round, for whatever else the machine does only slows."""
    found = {shape: max(rounds) for shape, rounds in speeds.images_per_s.items()}
    shapes = zip(table["timm"], table["image_size"], strict=True)
    return table.assign(images_per_s=[found.get(shape, float("nan")) for shape in shapes])


def about_models(speeds: "Speeds | None" = None) -> str:
    """Say where the table's numbers come from."""
    text = (
        "Accuracies and V100 speeds are those that Table 1 of the paper prints; parameters and multiply-adds (of "
        "convolutions, linear layers and attention's matrix products) are counted on timm's networks."
    )
    if speeds is None:
        return text
    threads = f", {speeds.threads} threads" if speeds.threads > 1 else ""
    rounds = [sorted(found, reverse=True) for found in speeds.images_per_s.values()]
    slowest = max(found[0] / found[-1] for found in rounds)
    told = f"the fastest of {len(rounds[0])} rounds in which networks took turns"
    if len(rounds[0]) > 1:
        second = max(found[0] / found[1] for found in rounds)
        told += f" (the next one is slower by {TIMES}{second:.2f} at most, the slowest by {TIMES}{slowest:.2f})"
    return (
        f"{text} Images/s here: inference in float32 on {speeds.device}{threads}, batches of {speeds.batch_size} "
        f"images, {told}."
    )


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the table as JSON-able rows; null where a number is missing."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def models_cells(table: pd.DataFrame) -> tuple[list[dict[str, str]], list[str]]:
    """Return the cells of the table by their headings, a row a model, and the notes that they refer to by number."""
    notes: list[str] = []
    cells = []
    for row in table.to_dict("records"):
        note = row["note"] or ("" if row["as_printed"] else "not as printed, and nobody has said why")
        if note and note not in notes:
            notes.append(note)
        cells.append(
            {
                "model": row["model"],
                "training": TRAINING[row["training"]],
                "image": f"{row['image_size']}²",
                "parameters (M)": f"{row['params'] / 1e6:.2f}",
                "paper's (M)": f"{row['paper_params_m']}",
                "multiply-adds (G)": f"{row['macs'] / 1e9:.2f}",
                "of attention": f"{row['attention_macs'] / 1e9:.2f}" if row["attention_macs"] else "",
                "paper's (G)": f"{row['paper_gmacs']:.1f}",
                "images/s here": _speed(row["images_per_s"]),
                "V100, paper's": _speed(row["paper_v100_images_per_s"]),
                "top-1": f"{row['top1']:.1f}",
                "": f"[{notes.index(note) + 1}]" if note else "ok",
            }
        )
    if table["images_per_s"].isna().all():
        cells = [{name: value for name, value in row.items() if name != "images/s here"} for row in cells]
    return cells, notes


def _speed(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.1f}"


def models_markdown(table: pd.DataFrame, about: str) -> str:
    """Return the table as Markdown with its notes below, under a sentence about where the numbers come from."""
    cells, notes = models_cells(table)
    listed = "\n".join(f"- [{number}] {note}." for number, note in enumerate(notes, 1))
    return f"{about}\n\n{cells_markdown(cells)}\n" + (f"\n{listed}\n" if notes else "")


def write_models(table: pd.DataFrame, out: Path, speeds: "Speeds | None" = None) -> list[Path]:
    """Write the table as CSV and Markdown, its accuracies as bubbles, and where all that comes from; return the files.

    Args:
        table: That of `models_table`.
        out: The folder.
        speeds: What was measured, if anything was.

    Raises:
        UserError: If the folder cannot be written.
    """
    about = about_models(speeds)
    words = Words(
        title="ImageNet classification: accuracy as printed, and what it costs",
        axis="Top-1 accuracy on ImageNet-1K (%); a bubble's area is the model's multiply-adds",
        note=about,
    )
    texts = {"models.csv": table.to_csv(index=False), "models.md": models_markdown(table, about)}
    for name, text in texts.items():
        write_atomically(out / name, partial(_write, text))
    rounds = [] if speeds is None else [[*shape, found] for shape, found in speeds.images_per_s.items()]
    measured = {} if speeds is None else speeds._asdict() | {"images_per_s": rounds}
    told = provenance()
    about_run = read_provenance(told, PROVENANCE) | {"at": told["planned_at"], "measured": measured}
    write_json(out / "models.json", about_run)
    figure = draw_bubbles(table, words, TRAINING, speeds.device if speeds else "")
    return [*(out / name for name in (*texts, "models.json")), *save_figure(figure, out / "figure1")]


def _write(text: str, file: IO[bytes]) -> None:
    file.write(text.encode())
