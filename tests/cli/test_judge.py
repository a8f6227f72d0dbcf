import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from roadmap.cli.main import main
from tests.processes import ROOT

ROWS = "rung,seed,acc,loss\n" + "".join(
    f"{rung},{seed},{acc + seed / 10},{loss + seed / 100}\n"
    for rung, acc, loss in (("plain", 70, 1.5), ("wide", 80, 1.0), ("deep", 80.05, 1.01))
    for seed in range(3)
)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(ROWS)
    (tmp_path / "labels.yaml").write_text("plain: Plain\nwide: Wide net\ndeep: Deep\n")
    return tmp_path / "mine.csv"


def test_anybodys_results_are_answered_and_reported(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lower-is-better", "loss", "--margin", "1", "--labels", "labels.yaml", "--title", "My nets"]
    assert main(["judge", str(results), *words, "--columns", "answer", "rung"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("All 2 steps are answered at 3 seeds: 1 helps (wide), 1 has no effect within 1 (deep).")
    assert "loss: 1 of 2 answered." in out
    folder = Path("out") / "mine"
    assert "Wide net" in (folder / "ladder.tex").read_text()
    assert (folder / "ladder.tex").read_text().splitlines()[3] == "answer & rung \\\\"
    assert "# My nets" in (folder / "ladder.md").read_text()
    assert set(pd.read_csv(folder / "verdicts.csv")["answer"]) == {"helps", "no effect", "undecided"}


def test_json_has_a_row_a_metric_and_step(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "mine.csv", "--json", "--against", "plain", "--metrics", "loss", "--test", "welch"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["metric"], row["step"], row["against"]) for row in rows] == [
        ("loss", "wide", "plain"),
        ("loss", "deep", "plain"),
    ]
    assert rows[0]["answer"] == "hurts"  # more is better unless it is said
    assert rows[0]["p"] == rows[0]["p_welch"]
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.csv"], "nowhere.csv: cannot be read"),
        (["mine.csv", "--against", "wid"], "against: unknown rung 'wid'. Did you mean 'wide'?"),
        (["mine.csv", "--columns", "stars"], "--columns: unknown column 'stars'"),
        (["mine.csv", "--metrics", "lost"], "unknown metric 'lost'. Did you mean 'loss'?"),
        (["mine.csv", "--width", "wide"], "--width: 'wide' is not a number above 0"),
        (["mine.csv", "--labels", "nolabels.yaml"], "nolabels.yaml: cannot be read"),
        ([], "FILE"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(
    words: list[str], said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", *words]) == 2
    assert said in capsys.readouterr().err


def test_judging_takes_no_training_library(results: Path) -> None:
    code = (
        "import sys; from roadmap.cli.main import main; main(['judge', 'mine.csv']); "
        "sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False).returncode == 0
    )
