"""`compare --with`: what a word may name, what is printed and written, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.report.write import write_report
from roadmap.cli.main import main
from roadmap.jobs.launcher import prepare
from roadmap.runs import run_folder
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.processes import ROOT

RECORDS = ROOT / "records"
FASHION, FULL = str(RECORDS / "resnet50-fashion"), str(RECORDS / "resnet50-fashion_full")
ROW = {"result_version": run_folder.RESULT_VERSION, "state": "finished", "top5": 99.0, "nll": 0.5, "ece": 1.0}


def finish(study: Study, gain: float) -> None:
    """Write results in which every rung is better by so much than the one before it."""
    for run in prepare(study.planned()):
        place = [rung.id for rung in study.rungs].index(run.rungs[0])
        top1 = 70.0 + gain * place + run.config.seed / 10
        result = ROW | {"top1": top1, "train_loss": 0.5, "images_per_s": 100.0, "train_s": 1.0, "wall_s": 1.0}
        (run.folder / run_folder.RESULT).write_text(json.dumps(result))


@pytest.fixture
def studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_recipes: Callable[..., Path], small_images: Path
) -> list[str]:
    """Train two bases in two folders of runs, as it were; return the words that name the first study."""
    monkeypatch.chdir(tmp_path)
    recipe = write_recipes(seeds=[0, 1, 2])
    for runs, base, gain in (("runs", "resnet50", 2.0), ("runs", "resnet200", 2.0), ("other", "resnet50", 0.0)):
        finish(plan_study(StudySpec(base, recipe, until="patchify_stem", data_root=small_images, runs=runs)), gain)
    words = ["--base", "resnet50", "--recipe", str(recipe), "--data", str(small_images), "--until", "patchify_stem"]
    return ["compare", *words]


def rows_of(capsys: pytest.CaptureFixture[str]) -> pd.DataFrame:
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return pd.DataFrame(rows).query("metric == 'top1'").reset_index(drop=True)


def test_two_records_are_compared_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--record", FASHION, "--with", FULL]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(
        "Against resnet50-fashion_full, 1 of the 16 steps that both have is answered: 1 is worth more"
    )
    folder = tmp_path / "out" / "resnet50-fashion-with-resnet50-fashion_full"
    assert f"Wrote out/{folder.name}/" in out
    assert (folder / "comparison.svg").is_file()


def test_bases_folders_of_runs_and_the_paper_stand_beside_a_study(
    studies: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*studies, "--with", "resnet200", "other", "paper", "--json"]) == 0
    rows = rows_of(capsys)
    assert list(dict.fromkeys(rows["study"])) == ["resnet200", "other", "the paper"]
    difference = rows.groupby("study")["difference"].mean()
    assert difference["resnet200"] == pytest.approx(0.0)
    assert difference["other"] == pytest.approx(2.0)
    assert set(rows.loc[rows["study"] == "other", "worth"]) == {"more here"}
    assert not Path("out").exists()


def test_a_ladder_and_what_it_changes_together_are_one_word(
    studies: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "sections: [A]\nbases:\n  resnet50: {label: R, result: E}\nrungs:\n"
        "  - {id: baseline, label: b, section: A}\n"
        "  - {id: patchify_stem, label: p, section: A, step: patchify_stem}\n"
    )
    study = plan_study(
        StudySpec("resnet50", studies[4], tmp_path / "mine.yaml", data_root=studies[6], runs="other", seeds=[0, 1, 2])
    )
    finish(study, 1.0)
    words = [word for word in studies if word not in ("--until", "patchify_stem")]
    assert main([*words, "--with", "mine.yaml,other", "--json"]) == 0
    rows = rows_of(capsys)
    assert list(rows["step"]) == ["patchify_stem"]
    assert (rows["against"] + rows["against_there"]).tolist() == ["stage_ratiobaseline"]
    assert rows["study"].tolist() == ["mine, other"]


def test_one_step_is_shown_in_every_metric(studies: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*studies, "--with", "other", "--step", "stage_ratio"]) == 0
    out = capsys.readouterr().out
    assert "There: other" in out
    assert "top-1 (%)" in out
    assert "NLL (nats)" in out
    assert not Path("out").exists()


def test_a_file_of_results_and_a_record_of_ones_own_stand_beside_a_study(
    studies: list[str], capsys: pytest.CaptureFixture[str], small_images: Path
) -> None:
    study = plan_study(StudySpec("resnet50", studies[4], until="patchify_stem", data_root=small_images, runs="other"))
    write_report(study, Path("mine"))
    capsys.readouterr()
    assert main([*studies, "--with", "mine", "mine/ladder.csv", "--json"]) == 2  # a ladder's table has no seeds
    assert "no column 'seed'" in capsys.readouterr().err
    Path("their.csv").write_text((Path("mine") / "results.csv").read_text())
    assert main([*studies, "--with", "mine", "their.csv", "--json"]) == 0
    rows = rows_of(capsys)
    assert rows.groupby("study")["difference"].mean().to_dict() == pytest.approx({"mine": 2.0, "their": 2.0})


def test_the_papers_ladders_are_compared_from_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--published", "--base", "resnet50", "--with", "resnet200", "--json"]) == 0
    rows = rows_of(capsys)
    assert len(rows) == 16
    assert set(rows["verdict"]) == {"not tested: no spread"}  # the paper trained its large networks once


def test_a_record_alone_is_judged_by_todays_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--record", FASHION, "--step", "gelu"]) == 0
    assert "training loss" in capsys.readouterr().out
    assert main(["compare", "--record", FASHION, "--json"]) == 0
    assert len(rows_of(capsys)) == 16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--with", "resnet20"], "--with: unknown study 'resnet20'. Did you mean 'resnet200'"),
        (["--with", "fashion,fashion_full"], "'fashion' and 'fashion_full' are both a recipe. Keep one."),
        (["--with", "paper", "--step", "gely"], "--step: unknown step 'gely'"),
        (["--with", "paper", "--against", "baseline"], "--against: is about one study"),
        (["--with", "paper", "published"], "'the paper' is there twice"),
        (["--with", FASHION], "'resnet50-fashion' is there twice"),
        (["--with", str(RECORDS / "recipe-fashion")], "have no step in common"),
        (["--with", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--published", "--with", "paper"], "Leave one of the two out"),
        (["--step", "gely"], "unknown step 'gely'"),
        (["--only", "gelu"], "--only: goes with runs of your own"),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--record", FASHION, *words]) == 2
    assert said in capsys.readouterr().err


def test_the_paper_has_nothing_of_other_ladders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--record", str(RECORDS / "vgg16-fashion"), "--with", "paper"]) == 2
    assert "nothing is published of a ladder from vgg16" in capsys.readouterr().err
