"""How robust a study's networks are: from the run folders to a frame, cells, sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from roadmap.common.formats import clock
from roadmap.robustness.settings import (
    CHECKED,
    CLEAN,
    CORRUPTION_NAMES,
    FGSM,
    MASKING,
    PGD,
    SEVERITIES,
    STEPS,
    SUSPICIOUS,
    Damaged,
    Settings,
    is_complete,
    masks_gradients,
    name_of,
    read_found,
)
from roadmap.runs import run_folder
from roadmap.runs.metrics import Metric
from roadmap.study.plan import Study

ATTACKS = {FGSM: "FGSM", PGD: f"PGD-{STEPS}"}  # what they are called
MARGIN = 1.0  # points

# A row a run: column -> meaning and unit. Accuracies are top-1 on `images` test images, percent.
ROBUSTNESS_COLUMNS = {
    "rung": "rung",
    "seed": "seed",
    "run": "run folder",
    "weights": "last step, or moving average",
    "images": "test images, the same for all runs",
    "clean_top1": "accuracy on these images as they are",
    "fgsm_R": "accuracy under FGSM, each pixel changed by up to R/255 (a column for each R)",
    "pgd_R": f"accuracy under PGD of {STEPS} steps from a random start, the same way",
    "corrupted_top1": f"mean accuracy over {len(CORRUPTION_NAMES)} corruptions and {len(SEVERITIES)} severities",
    "mce": "mean corruption error: each corruption's error over its severities as a share of that of the rung that is "
    "named beside it (mean over its seeds), averaged over corruptions, percent",
    "check_radius": "radius of the check for gradient masking, in 255ths",
    "check_images": "images of this check",
    "check_pgd": f"their accuracy under PGD of {STEPS} steps",
    "check_more_steps": "under PGD of more steps",
    "check_restarts": f"under PGD of {STEPS} steps from several random starts",
    "check_square": "under Square, a search that sees no gradients",
    "masks_gradients": f"whether one of the former leaves over {SUSPICIOUS:g} point (and one image) more than "
    "check_pgd, or the latter as much less: then the accuracies under FGSM and PGD mean nothing",
    **{name: f"mean accuracy over the {len(SEVERITIES)} severities of this corruption" for name in CORRUPTION_NAMES},
    "cpu_s": "processor seconds that the examination took, reading and building not counted",
    "pgd_cpu_s": "of these, PGD at all radii",
    "commit": "of the program that examined it",
    "device": "on which",
}


@dataclass(frozen=True)
class Robustness:
    """What was found of a study's networks (an `analysis.metrics.Evaluated`).

    Attributes:
        frame: A row a run that was examined to its end, with the columns of `ROBUSTNESS_COLUMNS`; empty without any.
        radii: Those of the attacks, in 255ths.
        reference: The rung whose corruption errors others are divided by; None where it was not examined.
        notes: What a reader should know beside the numbers, a sentence each.
    """

    frame: pd.DataFrame
    radii: tuple[float, ...] = ()
    reference: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Metric]:
        """The columns that verdicts are given on, and what they are."""
        if self.frame.empty:
            return {}
        metrics = metrics_under(self.radii)
        return metrics if self.reference else {name: metric for name, metric in metrics.items() if name != "mce"}


def metrics_under(radii: Sequence[float]) -> dict[str, Metric]:
    """Return what is judged of robustness, by its columns, under attacks of these radii (in 255ths)."""
    attacks = {
        name_of(attack, radius): Metric(f"{ATTACKS[attack]} {radius:g}/255 (%)", 1, MARGIN)
        for attack in (FGSM, PGD)
        for radius in radii
    }
    corruptions = {"corrupted_top1": Metric("corrupted (%)", 1, MARGIN)}
    return attacks | corruptions | {"mce": Metric("mean corr. error (%)", -1, MARGIN)}


def collect_robustness(study: Study) -> Robustness:
    """Read what was found of a study's networks, in the way that most of them were asked and answered."""
    entries, damaged = [], []
    for rung in study.rungs:
        for seed in study.seeds_of(rung.id):
            config = study.configs[rung.id, seed]
            try:
                found = read_found(study.folder(config))
            except Damaged as error:
                damaged.append(str(error))
                continue
            if run_folder.is_finished(study.folder(config)):
                entries += [(rung.id, seed, config.id, entry) for entry in found if is_complete(entry)]
    if not entries:
        return Robustness(pd.DataFrame(columns=list(ROBUSTNESS_COLUMNS)), notes=tuple(damaged))
    ways = [_way(entry) for *_, entry in entries]
    chosen = Counter(ways).most_common(1)[0][0]
    rows = {}
    for (rung_id, seed, run, entry), way in zip(entries, ways, strict=True):
        if way == chosen:
            rows[rung_id, seed] = {"rung": rung_id, "seed": seed, "run": run} | _row(entry)
    frame = pd.DataFrame(rows.values())
    reference = _reference(study)
    baseline = frame[frame["rung"] == reference]
    if baseline.empty:
        reference = None
    else:
        errors = 100 - baseline[list(CORRUPTION_NAMES)].mean()
        frame["mce"] = 100 * ((100 - frame[list(CORRUPTION_NAMES)]) / errors).mean(axis=1)
    radii = tuple(entries[ways.index(chosen)][-1]["asked"]["radii"])
    frame = frame.reindex(columns=_columns(radii))
    notes = (*_notes(study, frame, len(study.configs), reference), *damaged)
    return Robustness(frame, radii, reference, notes)


def _way(entry: dict[str, Any]) -> str:
    """Return how an entry was asked, whatever its weights."""
    return str(sorted((key, value) for key, value in entry["asked"].items() if key != "fingerprint"))


def _columns(radii: Sequence[float]) -> list[str]:
    """Return the columns, those of each radius written out."""
    columns: list[str] = []
    for name in ROBUSTNESS_COLUMNS:
        columns += [name_of(name[:-2], radius) for radius in radii] if name.endswith("_R") else [name]
    return columns


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    asked, parts = entry["asked"], entry["parts"]
    corrupted = {name: sum(parts[name]) / len(SEVERITIES) for name in CORRUPTION_NAMES}
    settings = Settings(radii=tuple(asked["radii"]))
    return {
        "weights": asked.get("weights"),
        "images": asked["images"],
        "clean_top1": parts[CLEAN],
        **{f"{FGSM}_{radius}": value for radius, value in parts[FGSM].items()},
        **{name: parts[name] for radius in asked["radii"] if (name := name_of(PGD, radius))},
        "corrupted_top1": sum(corrupted.values()) / len(corrupted),
        "check_radius": settings.check_radius,
        "check_images": asked["check_images"],
        **{f"check_{name}": parts[MASKING][name] for name in CHECKED},
        "masks_gradients": masks_gradients(parts[MASKING], asked["check_images"]),
        **corrupted,
        "cpu_s": sum((entry.get("cpu_s") or {}).values()),
        "pgd_cpu_s": sum(s for part, s in (entry.get("cpu_s") or {}).items() if part.startswith(PGD)),
        "commit": entry.get("commit"),
        "device": entry.get("device"),
    }


def _reference(study: Study) -> str | None:
    """Return the first rung that trains under the study's own recipe."""
    for rung in study.rungs:
        if study.configs[rung.id, study.seeds[0]].recipe == study.recipe:
            return rung.id
    return None


def _notes(study: Study, frame: pd.DataFrame, wanted: int, reference: str | None) -> list[str]:
    images, first = int(frame["images"].iloc[0]), frame.iloc[0]
    test_on = next(iter(study.configs.values())).data.test_on
    against = f"mean corruption error is against '{reference}'" if reference else "without a baseline there is no mCE"
    notes = [
        f"Robustness: {len(frame)} of {wanted} runs, on {images:,} {test_on} images that no run trains on, the same "
        f"for all; {against}. An accuracy of one run is uncertain by up to ± {98 / images**0.5:.1f} points (95%) from "
        f"the choice of images, which rungs share. Examining took {clock(frame['cpu_s'].sum())} of processor time, "
        f"{clock(frame['pgd_cpu_s'].sum())} of it PGD at all radii."
    ]
    masked = frame[frame["masks_gradients"].astype(bool)]
    check = (
        f"Gradient masking, at {first['check_radius']:g}/255 on {int(first['check_images'])} images: PGD of more steps "
        "and from more starts leaves no higher accuracy, and Square, which sees no gradients, no lower one, in "
    )
    if masked.empty:
        notes.append(f"{check}all runs (to {SUSPICIOUS:g} point).")
    else:
        names = ", ".join(f"{row.rung} seed {row.seed}" for row in masked.itertuples())
        notes.append(f"{check}all runs but {names}: their accuracies under FGSM and PGD mean nothing.")
    return notes


# -- for people


def robustness_rows(study: Study, found: Robustness) -> list[dict[str, Any]]:
    """Return JSON-able rows, one a run that was examined."""
    rows = found.frame.astype(object).where(found.frame.notna(), None).to_dict("records")
    return [{"base": study.base} | {str(name): value for name, value in row.items()} for row in rows]


def robustness_cells(found: Robustness) -> list[dict[str, str]]:
    """Return the cells of a table, a row a rung in the ladder's order: means over seeds, with standard deviations."""
    radii = found.radii
    columns = {f"top-1 of these {int(found.frame['images'].iloc[0]):,} (%)": "clean_top1"} if len(found.frame) else {}
    for attack, called in ATTACKS.items():
        columns |= {f"{called} {radius:g}/255": name_of(attack, radius) for radius in radii}
    columns |= {"corrupted": "corrupted_top1", "mCE": "mce"}
    rows = []
    for rung, own in found.frame.groupby("rung", sort=False):
        masked = int(own["masks_gradients"].sum())
        cells = {"rung": str(rung), "n": str(len(own))}
        cells |= {heading: _mean(own[name]) for heading, name in columns.items()}
        rows.append(cells | {"gradients masked": f"YES, {masked} of {len(own)}" if masked else "no"})
    return rows


def check_cells(found: Robustness) -> list[dict[str, str]]:
    """Return the cells of a table of the check for gradient masking, a row a run."""
    headings = dict(zip(CHECKED, (f"PGD-{STEPS}", "more steps", "more starts", "Square"), strict=True))
    return [
        {"rung": row["rung"], "seed": str(row["seed"])}
        | {heading: f"{row[f'check_{name}']:.1f}" for name, heading in headings.items()}
        | {"gradients masked": "YES" if row["masks_gradients"] else "no"}
        for row in found.frame.to_dict("records")
    ]


def _mean(values: "pd.Series[float]") -> str:
    if values.isna().all():
        return ""
    std = values.std()
    return f"{values.mean():.1f}" + ("" if pd.isna(std) else f" ± {std:.1f}")
