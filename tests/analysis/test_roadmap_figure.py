import functools
import itertools
import re
import subprocess
import sys
import zlib

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from analysis.figures.roadmap import Chart, draw_roadmap, save_figure
from analysis.sentences import MARKS
from analysis.stats.answers import Answer
from roadmap.common.errors import UserError
from roadmap.ladder.ladder import read_ladder
from roadmap.ladder.schema import Reference
from tests.artists import all_text, artists, assert_texts_are_apart, words

LADDER = read_ladder()
PROXY = "PROXY, not ImageNet: Fashion-MNIST (15,000 images), width / 8, 30,000 images seen a run, 3 seeds"
SIDE_BRANCHES = ["kernel_5", "kernel_9", "kernel_11"]
NAN = float("nan")


def published(base="resnet50"):
    rows = [
        {
            "rung": rung.id,
            "label": rung.label,
            "section": rung.section,
            "adopted": rung.adopted,
            "parent": rung.parent,
            "state": "finished",
            "n": 1 if rung.paper.top1_std is None else 3,
            "top1": rung.paper.top1,
            "top1_std": rung.paper.top1_std,
            "macs": rung.paper.gmacs * 1e9,
            "erratum": rung.paper.erratum.note if rung.paper.erratum else "",
        }
        for rung in LADDER.climb(base)
    ]
    return pd.DataFrame(rows).astype({"top1": float, "top1_std": float, "macs": float})


def proxy():
    """Return a ladder with wide spreads, small networks and rungs without a result."""
    frame = published().assign(erratum="", n=3)
    frame["top1"] = [82 + 0.6 * i for i in range(len(frame))]
    frame["top1_std"] = [0.1 + 0.1 * (i % 15) for i in range(len(frame))]
    frame["macs"] = (frame["macs"] / 2000).round()
    return lose(lose(lose(frame, "kernel_9", "missing"), "fewer_norms", "diverged"), "separate_downsampling", "failed")


def lose(frame, rung, state):
    lost = frame["rung"] == rung
    return frame.assign(
        state=frame["state"].mask(lost, state),
        n=frame["n"].mask(lost, 0),
        top1=frame["top1"].mask(lost),
        top1_std=frame["top1_std"].mask(lost),
    )


def chart(base="resnet50", **changes):
    info = LADDER.bases[base]
    words = {
        "start": info.label,
        "result": info.result,
        "title": f"Modernizing {info.label}: published results ({info.source})",
        "axis": "ImageNet-1K top-1 accuracy (%)",
        "reference": info.reference,
        "behind_label": "ResNet-200 ladder",
    }
    return Chart(**(words | changes))


def spreads(figure):
    (axes,) = figure.axes
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def assert_legible(figure):
    assert_texts_are_apart(figure)
    (axes,) = figure.axes
    area = axes.get_window_extent()
    for row in artists(figure, "label").values():
        assert row.get_window_extent().x1 < area.x0
    for text in artists(figure, "value").values():
        assert text.get_window_extent().x1 <= area.x1
    cut = {arrow.get_ydata()[0] for arrow in artists(figure, "beyond").values()}
    for spread in spreads(figure):
        _, caps, _ = spread.lines
        ends = [end for cap in caps for end in (cap.get_window_extent().x0, cap.get_window_extent().x1)]
        assert max(ends) <= area.x1 or caps[0].get_ydata()[0] in cut, "a spread leaves the axis without an arrow"


CASES = {
    "published, the larger base behind": lambda: draw_roadmap(
        published(), chart(behind_reference=LADDER.bases["resnet200"].reference), published("resnet200")
    ),
    "published, the larger base": lambda: draw_roadmap(published("resnet200"), chart("resnet200")),
    "proxy": lambda: draw_roadmap(proxy(), chart(note=PROXY, reference=None), proxy().assign(top1=90.0).iloc[3:]),
    "one rung": lambda: draw_roadmap(published().iloc[:1], chart(reference=None)),
    "nothing has run": lambda: draw_roadmap(
        published().assign(n=0, top1=NAN, top1_std=NAN, state="missing"), chart(reference=None)
    ),
    "chance": lambda: draw_roadmap(published().assign(top1=10.0, top1_std=0.0, n=3), chart(reference=None)),
    "one run a rung, far apart": lambda: draw_roadmap(
        published().assign(top1=range(10, 95, 5), top1_std=NAN, n=1), chart(reference=None)
    ),
    "wordy": lambda: draw_roadmap(
        proxy().assign(label=proxy()["label"] + " and what else there is to say, for $5 or $6", erratum="why " * 60),
        chart(
            start="a_name_without_any_space_that_is_wider_than_its_column",
            result="a network with a long name",
            title="One title. " * 20,
            note=PROXY * 4,
            axis="accuracy " * 20,
            behind_label="the other ladder " * 12,
        ),
        proxy(),
    ),
}


@functools.cache
def drawn(case):
    return CASES[case]()


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_another_or_is_cut(case):
    assert_legible(drawn(case))


percent = st.floats(0, 100)
row = st.fixed_dictionaries(
    {
        "top1": percent | st.just(NAN),
        "top1_std": st.floats(0, 30) | st.just(NAN),
        "n": st.integers(1, 5),
        "behind": percent | st.just(NAN),
        "macs": st.floats(1e3, 9e12) | st.just(NAN),
        "adopted": st.booleans(),
        "section": st.sampled_from([None, "Macro Design", "Micro Design"]),
        "label": st.text("abc WM_-→$%^{}\\&#", min_size=1, max_size=60),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(row, min_size=1, max_size=6), st.text("ab M_$→\\{", max_size=80))
def test_any_ladder_is_drawn_legibly(rows, words):
    frame = pd.DataFrame(rows).assign(state="diverged", erratum="")
    frame["rung"] = [f"rung_{i}" for i in range(len(frame))]
    frame["parent"] = frame["rung"].shift()
    frame["n"] = frame["n"].where(frame["top1"].notna(), 0)
    behind = frame.assign(top1=frame["behind"])
    figure = draw_roadmap(frame, Chart(title=words, axis=words, result=words, note=words, behind_label=words), behind)
    assert_legible(figure)
    known = set(frame.loc[frame["top1"].notna(), "rung"])
    assert set(artists(figure, "value")) == known
    assert set(artists(figure, "bar")) | set(artists(figure, "beyond")) >= known


def test_a_bar_is_as_long_as_its_value_and_says_it():
    frame = published()
    figure = draw_roadmap(frame, chart(reference=None))
    bars, values = artists(figure, "bar"), words(figure, "value")
    assert list(bars) == list(frame["rung"])
    for rung, top1 in zip(frame["rung"], frame["top1"], strict=True):
        assert bars[rung].get_x() + bars[rung].get_width() == pytest.approx(top1)
        assert values[rung] == f"{top1:.2f}"


@pytest.mark.parametrize("case", CASES)
def test_every_bar_ends_inside_the_axis(case):
    (axes,) = drawn(case).axes
    low, high = axes.get_xlim()
    assert all(low <= bar.get_width() <= high for bar in artists(drawn(case), "bar").values())


def test_one_bad_rung_leaves_the_axis_to_the_others_and_stands_there_in_figures():
    frame = published()
    bad = frame["rung"] == "baseline_original"
    frame = frame.assign(top1=frame["top1"].mask(bad, 65.26), top1_std=frame["top1_std"].mask(bad, 11.34))
    frame["n"] = frame["n"].mask(bad, 3)
    figure = draw_roadmap(frame, chart())
    assert figure.axes[0].get_xlim()[0] >= 74
    assert words(figure, "value")["baseline_original"] == "65.26 ± 11.34"
    assert set(artists(figure, "beyond")) == {"baseline_original"}
    assert "baseline_original" not in artists(figure, "bar")
    assert "goes on beyond the edge" in all_text(figure)


def test_a_bad_side_branch_does_not_stretch_the_axis():
    frame = published()
    worse = frame.assign(top1=frame["top1"].mask(frame["rung"] == "kernel_5", 60.0))
    assert draw_roadmap(worse, chart()).axes[0].get_xlim() == draw_roadmap(frame, chart()).axes[0].get_xlim()


def test_each_answer_is_a_mark_beside_its_bar_that_the_legend_counts():
    frame = published()
    answers = ["", *itertools.islice(itertools.cycle(Answer), len(frame) - 1)]
    figure = draw_roadmap(frame.assign(answer=answers), chart(reference=None))
    marks = words(figure, "answer")
    assert marks == {rung: MARKS[answer] for rung, answer in zip(frame["rung"], answers, strict=True) if answer}
    for answer in Answer:
        assert f"{MARKS[answer]} {answer} ({answers.count(answer)})".replace(" ", "") in all_text(figure).replace(
            " ", ""
        )
    assert_legible(figure)
    assert not words(draw_roadmap(frame, chart()), "answer")


def test_the_headline_stands_between_the_title_and_the_bars():
    said = "9 of 16 steps are answered at 6 seeds: 4 help (baseline, increase_width), 5 have no effect."
    figure = draw_roadmap(published(), chart(headline=said, note=PROXY))
    assert said in all_text(figure)
    assert all_text(figure).index(said) < all_text(figure).index("PROXY")


@pytest.mark.parametrize("width", [3.3, 5.0, 10.0])
def test_a_figure_is_as_wide_as_asked_for_and_legible(width):
    said = "9 of 16 steps are answered at 6 seeds: 4 help (baseline, increase_width), 5 have no effect."
    frame = proxy().assign(answer=["", *["helps"] * 16])
    figure = draw_roadmap(frame, chart(note=PROXY, headline=said, reference=None, width=width))
    assert figure.get_size_inches()[0] == width
    assert_legible(figure)


def test_values_stand_inside_the_ends_of_their_bars():
    figure = draw_roadmap(published(), chart())
    figure.draw(FigureCanvasAgg(figure).get_renderer())
    for rung, bar in artists(figure, "bar").items():
        assert artists(figure, "value")[rung].get_window_extent().x1 < bar.get_window_extent().x1, rung


def test_rungs_stand_in_the_order_of_the_ladder_the_reference_last():
    figure = draw_roadmap(published(), chart())
    middles = {rung: bar.get_y() + bar.get_height() / 2 for rung, bar in artists(figure, "bar").items()}
    assert figure.axes[0].yaxis_inverted()
    assert sorted(middles, key=middles.__getitem__) == [*published()["rung"], "reference"]
    assert words(figure, "value")["reference"] == "81.30"
    assert words(figure, "label")["reference"] == "Swin-T"


def test_labels_values_and_costs_stand_at_the_height_of_their_bar():
    figure = draw_roadmap(published(), chart())
    figure.draw(FigureCanvasAgg(figure).get_renderer())
    for rung, bar in artists(figure, "bar").items():
        box = bar.get_window_extent()
        for kind in ("label", "value", "cost"):
            extent = artists(figure, kind)[rung].get_window_extent()
            assert extent.y0 < (box.y0 + box.y1) / 2 < extent.y1


def test_rungs_of_a_heading_share_a_colour_that_no_other_heading_has():
    frame = published()
    figure = draw_roadmap(frame, chart())
    bars = artists(figure, "bar")
    adopted = frame[frame["adopted"]]
    colors = {
        section: {to_hex(bars[rung].get_facecolor()) for rung in group["rung"]}
        for section, group in adopted.groupby("section", dropna=False)
    }
    assert all(len(shades) == 1 for shades in colors.values())
    assert len(set.union(*colors.values())) == 1 + len(LADDER.sections)
    assert all(section in all_text(figure) for section in [*LADDER.sections, "ResNet-50"])


def test_only_side_branches_are_hatched_and_the_legend_says_what_that_means():
    figure = draw_roadmap(published(), chart())
    assert [rung for rung, bar in artists(figure, "bar").items() if bar.get_hatch()] == SIDE_BRANCHES
    assert "not adopted" in all_text(figure)
    assert "not adopted" not in all_text(draw_roadmap(published().query("adopted"), chart()))


def test_a_rung_without_a_result_has_a_word_in_place_of_its_bar():
    figure = draw_roadmap(proxy(), chart(reference=None))
    expected = {"kernel_9": "not run yet", "fewer_norms": "diverged", "separate_downsampling": "failed"}
    assert words(figure, "word") == expected
    assert not set(expected) & (set(artists(figure, "bar")) | set(artists(figure, "value")))
    assert set(expected) < set(artists(figure, "label"))


def test_the_other_ladder_is_a_wider_bar_behind_at_the_same_height():
    other = published("resnet200").query("rung != 'gelu'")
    figure = draw_roadmap(published(), chart(), lose(other, "layer_norm", "missing"))
    front, behind = artists(figure, "bar"), artists(figure, "behind")
    assert set(front) - set(behind) == {"gelu", "layer_norm", "reference"}
    expected = other.set_index("rung")["top1"]
    for rung, bar in behind.items():
        assert bar.get_width() == pytest.approx(expected[rung])
        assert bar.get_y() + bar.get_height() / 2 == pytest.approx(front[rung].get_y() + front[rung].get_height() / 2)
        assert bar.get_height() > front[rung].get_height()
    assert "ResNet-200 ladder" in all_text(figure)


def test_the_reference_of_the_other_ladder_stands_behind_ours():
    figure = draw_roadmap(published(), chart(behind_reference=Reference(label="Swin-B", top1=83.5, gmacs=15.4)))
    assert artists(figure, "behind")["reference"].get_width() == 83.5
    assert words(figure, "label")["reference"] == "Swin-T / Swin-B"


def test_error_bars_span_the_standard_deviation_where_there_are_two_seeds_or_more():
    frame = published()
    frame.loc[frame["rung"] == "gelu", "n"] = 1
    figure = draw_roadmap(frame, chart())
    bars = [spread.lines[2][0].get_segments()[0] for spread in spreads(figure)]
    drawn = frame[(frame["n"] > 1) & frame["top1_std"].notna()]
    assert [(right[0] - left[0]) / 2 for left, right in bars] == pytest.approx(list(drawn["top1_std"]))
    assert [(right[0] + left[0]) / 2 for left, right in bars] == pytest.approx(list(drawn["top1"]))
    assert "standard deviation over 3 seeds" in all_text(figure)


def test_the_legend_says_when_seeds_differ_and_nothing_when_there_is_no_spread():
    frame = published()
    frame.loc[3, "n"] = 2
    assert "standard deviation over 2 to 3 seeds" in all_text(draw_roadmap(frame, chart()))
    assert "standard deviation" not in all_text(draw_roadmap(published("resnet200"), chart()))


def test_a_proxy_says_so_in_the_figure_on_a_ground_of_its_own():
    figure = draw_roadmap(proxy(), chart(note=PROXY, reference=None))
    (note,) = [text for text in figure.texts if " ".join(text.get_text().split()) == PROXY]
    assert note.get_bbox_patch() is not None
    assert "PROXY" not in all_text(draw_roadmap(published(), chart()))


def test_the_last_adopted_rung_carries_the_name_of_the_result():
    figure = draw_roadmap(published(), chart())
    assert " ".join(words(figure, "label")["separate_downsampling"].split()) == "separate downsampling = ConvNeXt-T"
    bold = [rung for rung, label in artists(figure, "label").items() if label.get_weight() == "bold"]
    assert bold == ["separate_downsampling"]


def test_a_ladder_that_stops_short_or_has_only_its_start_names_no_result():
    for figure in (
        draw_roadmap(published().iloc[:5], chart(result="")),
        draw_roadmap(published().iloc[:1], chart()),
    ):
        assert "=" not in "".join(words(figure, "label").values())


def test_costs_are_in_the_unit_that_suits_the_networks():
    large, small = draw_roadmap(published(), chart()), draw_roadmap(proxy(), chart(reference=None))
    assert "GFLOPs (multiply-adds)" in all_text(large)
    assert words(large, "cost")["depthwise_conv"] == "2.35"
    assert words(large, "cost")["reference"] == "4.50"
    assert "MFLOPs (multiply-adds)" in all_text(small)
    assert words(small, "cost")["depthwise_conv"] == "1.18"
    some = draw_roadmap(published().assign(macs=lambda frame: frame["macs"].where(frame["rung"] == "gelu")), chart())
    assert words(some, "cost")["stage_ratio"] == "-"


def test_without_any_costs_there_is_no_column_of_them_and_the_bars_take_its_place():
    known, unknown = (
        draw_roadmap(frame, chart(reference=None)) for frame in (published(), published().assign(macs=NAN))
    )
    assert not words(unknown, "cost")
    assert "FLOPs" not in all_text(unknown)
    assert unknown.axes[0].get_position().x1 > known.axes[0].get_position().x1 + 0.05


def test_a_misprint_is_marked_and_explained():
    figure = draw_roadmap(published(), chart())
    marks = words(figure, "mark")
    assert list(marks) == ["layer_norm", "separate_downsampling"]
    assert len(set(marks.values())) == 2
    for rung, mark in marks.items():
        note = published().set_index("rung")["erratum"][rung]
        assert f"{mark} {note}" in all_text(figure)


def test_the_axis_says_where_it_starts():
    (axes,) = (figure := draw_roadmap(published(), chart())).axes
    low = axes.get_xlim()[0]
    assert 0 < low < 76.13
    assert f"the axis starts at {low:g}" in all_text(figure)
    assert axes.get_xticks()[0] == low


def test_no_tick_stands_beyond_100_percent():
    (axes,) = draw_roadmap(published().assign(top1=99.9, top1_std=0.1), chart(reference=None)).axes
    assert max(axes.get_xticks()) <= 100


def test_no_text_is_smaller_than_7_points():
    figure = draw_roadmap(published(), chart(note=PROXY), published("resnet200"))
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


def test_the_callers_frame_and_style_are_left_alone():
    frame, copy = published(), published()
    with_style = draw_roadmap(frame, chart())
    pd.testing.assert_frame_equal(frame, copy)
    import matplotlib

    with matplotlib.style.context("dark_background"):
        assert draw_roadmap(frame, chart()).get_facecolor() == with_style.get_facecolor()


def test_a_figure_is_written_in_three_formats_and_twice_the_same(tmp_path):
    files = save_figure(draw_roadmap(published(), chart()), tmp_path / "new" / "road.map")
    assert [path.name for path in files] == ["road.map.png", "road.map.svg", "road.map.pdf"]
    first = [path.read_bytes() for path in files]
    assert [first[0][:4], first[1][:5], first[2][:4]] == [b"\x89PNG", b"<?xml", b"%PDF"]
    save_figure(draw_roadmap(published(), chart()), tmp_path / "new" / "road.map")
    assert first == [path.read_bytes() for path in files]


def test_the_fonts_in_a_pdf_hold_letters_and_nothing_that_places_them(tmp_path):
    (pdf,) = save_figure(draw_roadmap(published(), chart()), tmp_path / "roadmap", ["pdf"])
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf.read_bytes(), re.DOTALL)
    fonts = [font for font in map(unpacked, streams) if font[:4] == b"\0\1\0\0"]
    assert fonts
    for font in fonts:
        tables = font[12 : 12 + 16 * int.from_bytes(font[4:6])]
        assert b"glyf" in tables
        assert b"GPOS" not in tables


def unpacked(stream):
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return stream


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        save_figure(draw_roadmap(published().iloc[:1], chart()), tmp_path / "file" / "roadmap")


def test_drawing_needs_neither_torch_nor_pyplot():
    code = "import sys, analysis.figures.roadmap; print({'torch', 'timm', 'matplotlib.pyplot'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
