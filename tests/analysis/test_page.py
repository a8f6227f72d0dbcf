import base64
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from selenium.webdriver.common.keys import Keys

from analysis.figures.roadmap import Chart, draw_roadmap, save_figure
from analysis.history import AttemptSummary, RunHistory, points_of_each, read_curve, spread
from analysis.ladder_table import ladder_table, published_table, with_answers
from analysis.report.page import Page, Picture, write_page
from analysis.report.page_runs import words
from analysis.report.svg import inline_svg
from analysis.verdicts import pairs_of, published_verdicts, verdict_table
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker
from tests.browser import LAPTOP, PHONE, Browser
from tests.samples import PAPER

RUNGS = PAPER.climb("resnet50")
LARGEST = 5_000_000  # bytes
WORKER = Worker(host="node1", space="", pid=1, born=1, device="a GPU", commit="abc")
PLANNED = {"commit": "abc", "host": "laptop", "versions": {"torch": "2"}, "command": ["run_ladder.py", "--base"]}
HOSTILE = "<script>window.hacked = 1</script> \" ' & $x$ {{ 7 * 7 }} </script><!--"


def runs_of(seeds: int) -> pd.DataFrame:
    """Return finished runs of the paper's ladder with some spread."""
    draw = np.random.default_rng(0)
    rows = [
        {"base": "resnet50", "rung": rung.id, "seed": seed, "run": f"{number:012x}-s{seed}", "recipe": "fashion",
         "macs": 1_400_000 + number, "params": 375_938, "state": "finished", "top1": 80 + number / 4 + draw.normal(),
         "top5": 99.0, "nll": 0.5 + draw.normal() / 50, "ece": 3.0, "train_loss": 0.5, "images_per_s": 1000.0 + seed,
         "train_s": 20.0, "wall_s": 24.0 + seed, "error": None}
        for number, rung in enumerate(RUNGS)
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def figure_file(path: Path, label: str = "") -> Path:
    """Write a figure whose SVG refers to its own parts, with the ids that any other of its kind has too."""
    figure = Figure(figsize=(7, 3))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], marker="o")
    axes.bar([0, 1], [1, 2], hatch="//")
    axes.set_title(label, parse_math=False)
    with rc_context({"svg.hashsalt": "same"}):
        figure.savefig(path, format="svg")
    return path


def page_of(folder: Path, runs: pd.DataFrame, *, points: int = 20, **changes: Any) -> Path:
    """Write the page of a study with all that a page can have; return its path."""
    table = ladder_table(runs, RUNGS)
    losses = tuple(2.5 / (1 + i) for i in range(points))
    work = (AttemptSummary(None, "preempted", 1.7e9), AttemptSummary(WORKER, "finished", 1.7e9 + 60))
    done = runs.loc[runs["state"] != "missing", "run"]
    parts = {
        "title": "Modernizing ResNet-50",
        "note": "PROXY, not ImageNet: small images",
        "is_proxy": True,
        "ladder": table,
        "pictures": [
            Picture(f"Picture {i}", f"What is to be seen in {i}.", figure_file(folder / f"{i}.svg")) for i in range(3)
        ],
        "verdicts": [verdict_table(runs, pairs_of(RUNGS), metric) for metric in ("top1", "nll")],
        "sentences": ["Some steps move the same way."],
        "runs": runs,
        "histories": {run: RunHistory(300, losses, PLANNED | {"planned_at": "2026-01-01"}, work) for run in done},
        "settings": {rung.id: {"network: stem": rung.net.stem, "recipe: lr": 0.004} for rung in RUNGS},
        "commands": [("Train", "python run_ladder.py run --base resnet50")],
        "provenance": {"commit": ["abc"], "nothing": None},
    }
    return write_page(folder / "report.html", Page(**(parts | changes)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of three seeds."""
    return page_of(tmp_path_factory.mktemp("small"), runs_of(3))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of 10,013 runs."""
    return page_of(tmp_path_factory.mktemp("large"), runs_of(589), points=points_of_each(10_013))


def unfold(browser: Browser) -> None:
    browser.ask("document.querySelectorAll('details').forEach(details => { details.open = true })")


def head(browser: Browser, text: str, table: str = "#verdicts details:first-of-type table") -> Any:
    (found,) = [button for button in browser.all(f"{table} thead button") if button.text.startswith(text)]
    return found


def column(browser: Browser, number: int, table: str = "#verdicts details:first-of-type table") -> list[str]:
    script = f"[...document.querySelector('{table}').tBodies[0].rows].map(row => row.cells[{number}].innerText)"
    return browser.ask(script)  # type: ignore[return-value]


# -- in a browser


@pytest.mark.browser
def test_a_page_opens_from_disk_fetches_nothing_and_has_nothing_to_complain_of(browser: Browser, small: Path) -> None:
    browser.open(small)
    assert browser.chrome.title == "Modernizing ResNet-50"
    assert browser.one("h1").text == "Modernizing ResNet-50"
    assert browser.ask("document.documentElement.lang") == "en"
    assert len(browser.all("figure svg")) == 3
    assert browser.complaints() == []
    assert browser.requests() == [small.as_uri()]


@pytest.mark.browser
@pytest.mark.parametrize("press", ["click", "keyboard"])
def test_a_heading_sorts_both_ways_with_numbers_as_numbers(browser: Browser, small: Path, press: str) -> None:
    browser.open(small)

    def use(button: Any) -> None:
        button.click() if press == "click" else button.send_keys(Keys.ENTER)

    unfold(browser)
    ladder = column(browser, 0)
    use(change := head(browser, "change"))
    first = [float(text.split()[0].replace("\N{MINUS SIGN}", "-")) for text in column(browser, 1)]
    assert first == sorted(first)
    assert min(first) < 0 < max(first)
    assert change.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    use(change)
    assert column(browser, 1)[0].startswith(f"{max(first):+.2f}")
    assert change.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    assert len(browser.all("#verdicts details:first-of-type th[aria-sort]")) == 1
    use(head(browser, "step"))
    assert column(browser, 0) == ladder
    use(head(browser, "step"))
    assert column(browser, 0) == ladder[::-1]


@pytest.mark.browser
def test_what_is_missing_stays_below_whichever_way_a_table_is_sorted(browser: Browser, tmp_path: Path) -> None:
    runs = runs_of(2)
    runs.loc[runs["rung"] == "gelu", ["state", "top1"]] = ["failed", None]
    browser.open(page_of(tmp_path, runs))
    unfold(browser)
    for _ in range(2):
        head(browser, "p").click()
        cells = column(browser, 3)
        assert cells[-2:] == ["", ""]  # gelu and the rung after it
        assert all(cells[:-2])


@pytest.mark.browser
def test_a_seeds_button_opens_its_learning_curve_and_tells_who_worked_on_it(browser: Browser, small: Path) -> None:
    browser.open(small)
    browser.one("#runs summary").click()
    button = browser.all("#runs details[open] td button")[1]
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    curve = browser.one("tr.opened svg")
    assert curve.get_attribute("aria-label") == "Training loss from 2.5 in epoch 1 to 0.125 in epoch 300"
    points = browser.one("tr.opened polyline").get_attribute("points") or ""
    assert len(points.split()) == 20
    text = browser.one("tr.opened").text
    for told in ("000000000000-s1", "20 of 300 shown", "laptop", "torch 2", "node1, a GPU, abc", "2023-11-14 22:14 UTC",
                 "preempted", "by whom is not known"):  # fmt: skip
        assert told in text
    head(browser, "top-1", "#runs details[open] table").click()
    assert button.find_element("xpath", "../../following-sibling::tr").get_attribute("class") == "opened"
    button.send_keys(Keys.ENTER)
    assert browser.all("tr.opened") == []
    assert button.get_attribute("aria-expanded") == "false"


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, LAPTOP], ids=["phone", "laptop"])
def test_a_page_is_as_wide_as_its_window_with_everything_open(
    browser: Browser, small: Path, size: tuple[int, int]
) -> None:
    browser.open(small, size)
    unfold(browser)
    browser.ask("document.querySelectorAll('td button').forEach(button => button.click())")
    assert len(browser.all("tr.opened")) == 51
    assert browser.ask("innerWidth") == size[0]
    assert browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    table = "document.querySelector('#verdicts table')"
    assert browser.ask(f"{table}.parentElement.scrollWidth > {table}.parentElement.clientWidth") == (size == PHONE)


@pytest.mark.browser
def test_a_page_of_ten_thousand_runs_is_small_and_works(browser: Browser, large: Path) -> None:
    assert large.stat().st_size < LARGEST
    browser.open(large)
    assert len(browser.all("#runs details")) == 17
    assert browser.ask("document.querySelectorAll('#runs tbody tr').length") == 10_013
    browser.ask("document.querySelector('#runs details:last-of-type').open = true")
    browser.all("#runs details[open] td button")[-1].click()
    assert "000000000010-s588" in browser.one("tr.opened").text
    assert browser.complaints() == []


@pytest.mark.browser
def test_texts_from_files_are_shown_as_they_are_and_never_run(browser: Browser, tmp_path: Path) -> None:
    runs = runs_of(2)
    runs.loc[0, ["state", "error"]] = ["failed", HOSTILE]
    table = ladder_table(runs, RUNGS).assign(label=HOSTILE, erratum=HOSTILE)
    history = RunHistory(1, (0.5,), {"host": HOSTILE}, (AttemptSummary(WORKER, HOSTILE, 0.0),))
    histories = dict.fromkeys(runs["run"], history)
    path = page_of(
        tmp_path,
        runs,
        title=HOSTILE,
        note=HOSTILE,
        ladder=table,
        sentences=[HOSTILE],
        tables=[(HOSTILE, [{HOSTILE: HOSTILE}])],
        histories=histories,
        settings={rung.id: {HOSTILE: HOSTILE + rung.id} for rung in RUNGS},
        commands=[(HOSTILE, HOSTILE)],
        provenance={HOSTILE: HOSTILE},
        pictures=[Picture(HOSTILE, HOSTILE, figure_file(tmp_path / "hostile.svg", HOSTILE))],
    )
    browser.open(path)
    unfold(browser)
    browser.ask("document.querySelectorAll('td button').forEach(button => button.click())")
    assert browser.ask("window.hacked") is None
    assert browser.chrome.title == HOSTILE
    for place in ("h1", ".note", "#verdicts th small", "#ladder th small", "#runs td:nth-child(2)", "#runs dt",
                  "#provenance dt", "#again code", "tr.opened dl", "figcaption"):  # fmt: skip
        assert HOSTILE in browser.one(place).text, place
    assert browser.one("figure .picture").get_attribute("aria-label") == HOSTILE
    assert browser.complaints() == []


@pytest.mark.browser
def test_figures_keep_their_ids_apart_and_their_references_whole(browser: Browser, small: Path) -> None:
    browser.open(small)
    ids = browser.ask("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert isinstance(ids, list)
    assert len(ids) == len(set(ids))
    text = small.read_text()
    referred = re.findall(r'href="#(f\d[^"]+)"', text) + re.findall(r"url\(#(f\d[^)]+)\)", text)
    assert referred
    assert set(referred) <= set(ids)


@pytest.mark.browser
def test_headings_go_down_one_level_at_a_time(browser: Browser, small: Path) -> None:
    browser.open(small)
    levels = browser.ask("[...document.querySelectorAll('h1, h2, h3, h4')].map(head => Number(head.tagName[1]))")
    assert isinstance(levels, list)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


@pytest.mark.browser
def test_figures_turn_dark_with_the_page_and_light_on_paper(browser: Browser, small: Path) -> None:
    browser.open(small)
    ground = "getComputedStyle(document.querySelector('figure svg #f1-patch_1 path')).fill"
    ink = "getComputedStyle(document.querySelector('figure svg #f1-text_1 use')).fill"
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    for media, expected in (
        ({"features": []}, ("rgb(255, 255, 255)", "rgb(28, 30, 33)")),
        ({"features": dark}, ("rgb(22, 24, 27)", "rgb(230, 232, 235)")),
        ({"features": dark, "media": "print"}, ("rgb(255, 255, 255)", "rgb(0, 0, 0)")),
    ):
        browser.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert (browser.ask(ground), browser.ask(ink)) == expected
    browser.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [], "media": ""})


@pytest.mark.browser
def test_the_first_screen_holds_the_sentence_and_the_answers_and_the_roadmap_comes_next(
    browser: Browser, tmp_path: Path
) -> None:
    said = "9 of 16 steps are answered at 3 seeds: 4 help, 5 have no effect."
    verdicts = verdict_table(runs := runs_of(3), pairs_of(RUNGS))
    table = with_answers(ladder_table(runs, RUNGS), verdicts, published_verdicts(PAPER, "resnet50"))
    browser.open(page_of(tmp_path, runs, headline=said, ladder=table))
    bottom = "document.querySelector('{}').getBoundingClientRect().bottom"
    assert browser.one(".headline").text == said
    assert float(str(browser.ask(bottom.format("#answers table")))) < LAPTOP[1]
    assert len(browser.all("#answers tbody tr")) == 16
    names = [cell.text.split(" (")[0] for cell in browser.all("#answers thead th")]
    assert [name.partition("\N{NO-BREAK SPACE}")[0] for name in names] == [
        "rung", "change", "answer", "against", "paper's change", "paper's answer"
    ]  # fmt: skip
    order = browser.ask("[...document.querySelectorAll('.headline, #answers, figure')].slice(0, 3).map(e => e.tagName)")
    assert order == ["P", "SECTION", "FIGURE"]


@pytest.mark.browser
def test_what_is_folded_stays_folded_on_paper(browser: Browser, small: Path) -> None:
    browser.open(small)
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert browser.all("details[open]") == []
    printed = browser.chrome.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    pages = re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed["data"]))
    assert 1 <= len(pages) <= 6


@pytest.mark.browser
def test_the_papers_numbers_make_a_page_without_runs(browser: Browser, tmp_path: Path) -> None:
    table = published_table(PAPER, "resnet50")
    page = Page(
        title="As published",
        note="Table 10",
        is_proxy=False,
        ladder=table,
        verdicts=[published_verdicts(PAPER, "resnet50")],
    )
    browser.open(write_page(tmp_path / "page.html", page))
    assert [link.text for link in browser.all("nav a")] == ["Every metric", "Ladder"]
    assert browser.all(".proxy") == []
    assert len(browser.all("td.better")) == 9
    assert "prints 4.46" in browser.one("#ladder").text
    assert browser.complaints() == []


# -- without one


def test_ids_and_labels_of_a_figure_are_text_in_the_page(tmp_path: Path) -> None:
    table = published_table(PAPER, "resnet50").assign(answer="helps")
    hostile = "</script><b>"
    table = table.replace({"rung": {"gelu": hostile}, "label": {"ReLU → GELU": hostile}})
    (path,) = save_figure(draw_roadmap(table, Chart(title=hostile, axis=hostile)), tmp_path / "roadmap", ["svg"])
    svg = inline_svg(path, "f1")
    assert "&lt;/script&gt;&lt;b&gt;" in svg
    assert hostile not in svg
    assert not re.search("#222222|#ffffff", svg, re.IGNORECASE)


def test_a_proxys_note_stands_out_and_a_figure_has_words_for_those_who_do_not_see_it(small: Path) -> None:
    text = small.read_text()
    assert '<p class="note proxy">PROXY, not ImageNet: small images</p>' in text
    assert text.count('role="img" aria-label="What is to be seen in') == 3
    assert "<?xml" not in text
    assert "<!DOCTYPE svg" not in text


def test_a_ladder_that_is_only_begun_says_what_is_missing_and_tests_nothing(tmp_path: Path) -> None:
    runs = runs_of(1)
    runs.loc[5:, ["state", "top1", "nll", "images_per_s", "wall_s"]] = ["missing", None, None, None, None]
    runs.loc[4, ["state", "error", "top1"]] = ["diverged", "the loss is nan at step 3", None]
    text = page_of(tmp_path, runs).read_text()
    assert "17 runs (1 seed a rung): 4 finished, 1 diverged, 12 missing." in text
    assert "diverged: the loss is nan at step 3" in text
    assert "not tested: one seed" in text
    assert "not tested: no result" in text
    assert "<tr><td>0<td>missing<td><td><td><td>\n" in text
    assert "nan<" not in text


def test_settings_of_all_rungs_stand_once_and_others_with_what_they_were_before(small: Path) -> None:
    text = small.read_text()
    assert text.count("<dt>recipe: lr</dt><dd>0.004</dd>") == 1
    assert text.count("<dt>network: stem</dt>") == 17
    assert text.count("before: resnet") == 1


def test_the_data_of_runs_is_json_whatever_a_run_left(tmp_path: Path) -> None:
    runs = runs_of(1)
    histories = {
        runs.loc[0, "run"]: RunHistory(3, (float("nan"), float("inf"), 0.123456)),
        runs.loc[1, "run"]: RunHistory(),
    }
    text = page_of(tmp_path, runs, histories=histories).read_text()
    (data,) = re.findall(r'id="data">(.*)</script>', text)
    assert [run[1:3] for run in json.loads(data)["runs"]] == [[3, [None, None, 0.123]], [0, []]]


def test_the_style_sheet_of_a_figure_is_held_to_it(tmp_path: Path) -> None:
    svg = inline_svg(figure_file(tmp_path / "one.svg"), "f7")
    assert "#f7-svg *{" in svg
    assert 'id="f7-svg"' in svg
    assert "<metadata" not in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "yes"), (0.004, "0.004"), ((3, 4), "3, 4"), ((), "none"), ({"torch": "2"}, "torch 2")],
)
def test_settings_are_told_in_words(value: Any, text: str) -> None:
    assert words(value) == text


# -- learning curves


def test_a_thinned_curve_keeps_both_ends_and_spreads_the_rest_evenly() -> None:
    assert spread(5, 10) == [0, 1, 2, 3, 4]
    assert spread(300, 4) == [0, 99, 199, 299]
    assert spread(0, 4) == []


def write_metrics(folder: Path, losses: list[float], tail: str = "") -> None:
    lines = io.StringIO()
    for epoch, loss in enumerate(losses, 1):
        lines.write(json.dumps({"epoch": epoch, "train_loss": loss}) + "\n")
    (folder / run_folder.METRICS).write_text(lines.getvalue() + tail)


def test_a_curve_is_read_from_the_epochs_of_a_run(tmp_path: Path) -> None:
    assert read_curve(tmp_path, 10) == (0, ())
    write_metrics(tmp_path, [3.0, 2.0, 1.0])
    assert read_curve(tmp_path, 10) == (3, (3.0, 2.0, 1.0))
    assert read_curve(tmp_path, 2) == (3, (3.0, 1.0))


@pytest.mark.parametrize("tail", ['{"epoch": 4, "tra', "[]\n", '{"epoch": 4}\n', "\xff\n"])
def test_a_damaged_end_of_a_curve_costs_that_end_alone(tail: str, tmp_path: Path) -> None:
    write_metrics(tmp_path, [3.0, 2.0, 1.0], tail)
    assert read_curve(tmp_path, 2) == (3, (3.0, 1.0))
