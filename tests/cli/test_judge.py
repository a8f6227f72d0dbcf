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
        (["mine.csv", "--columns", "answr"], "--columns: unknown column 'answr'. Did you mean 'answer'?"),
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


HEAD = "rung,seed,acc\n"


def rows_of(*rungs: str, seeds: int = 2) -> str:
    """Return rows in which each rung is a point better than the one before."""
    return "".join(f"{rung},{seed},{70 + i + seed / 10}\n" for i, rung in enumerate(rungs) for seed in range(seeds))


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("\ufeff" + HEAD + rows_of("a", "b"), 0, "b helps"),
        ((HEAD + rows_of("a", "b")).replace(",", ";"), 0, "b helps"),
        ((HEAD + rows_of("a", "b")).replace("\n", "\r\n"), 0, "b helps"),
        (HEAD + rows_of('"a\nb"', "c"), 0, "c helps"),
        (HEAD + rows_of("a", "b") + "a,0,71\n", 2, ":6: rung 'a' has seed 0 on line 2 already"),
        (HEAD + rows_of("a", "b") + "a,9,high\n", 2, ":6: column 'acc': 'high' is not a number"),
        (HEAD + rows_of("a", "b") + "a,9,1_000\n", 2, ":6: column 'acc': '1_000' is not a number"),
        (HEAD + rows_of("a", "b") + "a,9,inf\n", 2, ":6: column 'acc': 'inf' is no value"),
        (HEAD + rows_of("a", "b") + "a,9,1e400\n", 2, ":6: column 'acc': '1e400' is no value"),
        (HEAD + rows_of("a", "b") + "a,9,-1e300\n", 2, ":6: column 'acc': '-1e300' is beyond what is judged"),
        ("", 2, "is empty"),
        (HEAD, 2, "has a header and no rows"),
        (HEAD + rows_of("a", seeds=3), 0, "There is no step to judge"),
        (HEAD + rows_of("a", "b", seeds=1), 0, "b is not tested: one seed."),
        (HEAD + rows_of("\"=cmd()|'x'!A1\"", "<script>alert(1)</script>", "$x_1$", "x" * 300), 0, "3 help"),
        (HEAD + rows_of("\N{ROCKET} net", "\u65e5\u672c"), 0, "\u65e5\u672c helps"),
        (HEAD + "a\0b,0,70\n", 2, ":2: column 'rung': 'a\\x00b' has a control character in it"),
        ("rung,seed,a\x07cc\nb,0,70\n", 2, ":1: column 'a\\x07cc' has a control character in its name"),
        ((HEAD + rows_of("a", "b")).encode() + b"\xff\xfe,1,2\n", 2, ":6: is not UTF-8"),
        (HEAD + rows_of(*(f"r{i}" for i in range(50_000))), 2, "50,000 rungs, but a report shows 200 at most"),
    ],
)
def test_a_hostile_file_is_judged_or_refused_in_words_with_its_place(
    content: str | bytes, code: int, said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["judge", "mine.csv"]) == code
    out, err = capsys.readouterr()
    assert said in " ".join((err if code else out).split())
    assert not (out if code else err)
