import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.text import Text

from analysis.figures import Words, draw_curves, draw_effects, draw_forest, draw_tradeoff, pareto_front
from analysis.figures.roadmap import Chart, draw_roadmap, save_figure
from analysis.figures.style import PAPER as PAPER_COLOR
from analysis.figures.style import section_colors
from analysis.history import CURVE_COLUMNS, RunHistory, collect_histories, curves_of, spread
from analysis.ladder_table import ladder_table, published_table
from analysis.stats.answers import Answer
from analysis.verdicts import pairs_of, published_verdicts, verdict_table
from roadmap.jobs.launcher import prepare
from roadmap.ladder.ladder import read_ladder
from roadmap.runs import run_folder
from roadmap.study.spec import StudySpec, plan_study
from tests.artists import all_text, artists, assert_texts_are_apart, words
from tests.samples import LADDER, PAPER

NAN = float("nan")
RUNGS = PAPER.climb("resnet50")
IDS = [rung.id for rung in RUNGS]
SIDE_BRANCHES = {"kernel_5", "kernel_9", "kernel_11"}
PROXY = "PROXY, not ImageNet: Fashion-MNIST, width / 8, 3 seeds"
PUBLISHED = published_verdicts(PAPER, "resnet50")
TABLE = published_table(PAPER, "resnet50")
SAY = Words(title="What each step does for $5 or $6", axis="Change (points)", note=PROXY)


def runs(rungs=RUNGS, **changed):
    """Return three finished seeds a rung, with the states or accuracies that are given for some."""
    rows = []
    for i, rung in enumerate(rungs):
        for seed in range(3):
            value = changed.get(rung.id, [70 + i + 0.3 * math.sin(7 * i + 3 * seed)] * 3)[seed]
            done = not isinstance(value, str)
            row = {
                "rung": rung.id,
                "seed": seed,
                "state": "finished" if done else value,
                "top1": value if done else NAN,
            }
            rows.append(row | {"images_per_s": 1000.0 + 40 * (i * 5 % 17), "macs": 1e6 * (1 + i * 3 % 7), "params": 10})
    return pd.DataFrame(rows)


def forest(frame=None, rungs=RUNGS, **more):
    frame = runs(rungs) if frame is None else frame
    return draw_forest(verdict_table(frame, pairs_of(rungs)), ladder_table(frame, rungs), SAY, **more)


def effects(steps, values, half=0.5):
    values = np.asarray(values, dtype=float)
    return pd.DataFrame({"step": steps, "value": values, "ci_low": values - half, "ci_high": values + half})


def tradeoff(frame=None, **columns):
    frame = runs() if frame is None else frame
    table = ladder_table(frame, [rung for rung in RUNGS if rung.id in set(frame["rung"])])
    memory = 100.0 + 13 * (np.arange(len(table)) * 5 % 11)
    return table.assign(train_images_per_s=table["images_per_s"], peak_memory_mb=memory).assign(**columns)


def curves(epochs, rungs=IDS, seeds=3):
    rows = [
        (rung, seed, epoch, 1 + 0.02 * i + 0.1 * seed + 1 / epoch)
        for i, rung in enumerate(rungs)
        for seed in range(seeds)
        for epoch in range(1, epochs + 1)
    ]
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def own_ladder(tmp_path):
    path = tmp_path / "steps.yaml"
    path.write_text(LADDER)
    return read_ladder(path)


CASES = {
    "forest": lambda: forest(published=PUBLISHED),
    "forest, published": lambda: draw_forest(PUBLISHED, TABLE, SAY),
    "forest, rungs missing": lambda: forest(runs(gelu=["failed"] * 3, kernel_7=["missing"] * 3)),
    "forest, one rung": lambda: forest(rungs=RUNGS[:1]),
    "effects": lambda: draw_effects(
        {"on the ladder": effects(IDS[1:], range(16)), "left out": effects(IDS[3:9], [1, -1, NAN, 0, 2, 70])},
        TABLE,
        SAY,
    ),
    "effects, none": lambda: draw_effects({}, TABLE, SAY),
    "tradeoff": lambda: draw_tradeoff(tradeoff(), SAY),
    "tradeoff, published": lambda: draw_tradeoff(TABLE, SAY),
    "tradeoff, nothing": lambda: draw_tradeoff(tradeoff(top1=NAN), SAY),
    "tradeoff, one rung": lambda: draw_tradeoff(tradeoff(runs(RUNGS[:1])), SAY),
    "curves, 1 epoch": lambda: draw_curves(curves(1), TABLE, SAY),
    "curves, 300 epochs": lambda: draw_curves(curves(300), TABLE, SAY),
    "curves, one rung": lambda: draw_curves(curves(3, IDS[:1], 1), TABLE.iloc[:1], SAY),
    "curves, nothing": lambda: draw_curves(curves(0), TABLE, SAY),
    "wordy": lambda: draw_forest(
        verdict_table(runs(), pairs_of(RUNGS)),
        TABLE.assign(label=TABLE["label"] + " and what else there is to say, for $5 or $6"),
        Words(title="One title. " * 20, axis="accuracy " * 20, note=PROXY * 4),
        PUBLISHED,
    ),
    "wordy tradeoff": lambda: draw_tradeoff(tradeoff(label=TABLE["label"] + " and more to say, for $5 or $6"), SAY),
    "wordy curves": lambda: draw_curves(curves(2), TABLE.assign(label=TABLE["label"] + " and more, for $5 or $6"), SAY),
}


# -- all figures


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_another_or_is_cut_and_none_is_small(case):
    figure = CASES[case]()
    assert_texts_are_apart(figure)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6.5


@pytest.mark.parametrize("case", ["forest", "effects", "tradeoff", "curves, 1 epoch", "curves, nothing"])
def test_a_proxy_says_so_in_a_box(case):
    figure = CASES[case]()
    (note,) = [text for text in figure.texts if " ".join(text.get_text().split()) == PROXY]
    assert note.get_bbox_patch() is not None


@pytest.mark.parametrize("case", ["forest", "effects", "tradeoff", "curves, 1 epoch"])
def test_the_same_figure_gives_the_same_bytes(case, tmp_path):
    first, second = (
        [path.read_bytes() for path in save_figure(CASES[case](), tmp_path / name)] for name in ("first", "second")
    )
    assert first == second


def test_another_ladder_than_the_papers_is_drawn(tmp_path):
    rungs = own_ladder(tmp_path).climb("resnet50")
    frame = runs(rungs)
    table = ladder_table(frame, rungs)
    figure = forest(frame, rungs)
    assert set(words(figure, "label").values()) == {"wider", "bigger kernel"}
    assert list(artists(draw_tradeoff(table, SAY), "dot-macs")) == ["start", "widen", "big_kernel"]
    assert set(artists(draw_curves(curves(2, table["rung"]), table, SAY), "curve")) == {"widen", "big_kernel"}
    assert set(artists(draw_effects({"one": effects(["widen"], [1])}, table, SAY), "effect")) == {"0-widen"}


def test_the_callers_frames_are_left_alone():
    verdicts, table, lines = PUBLISHED.copy(), TABLE.copy(), curves(2)
    draw_forest(PUBLISHED, TABLE, SAY, PUBLISHED)
    draw_tradeoff(TABLE, SAY)
    draw_curves(lines, TABLE, SAY)
    pd.testing.assert_frame_equal(verdicts, PUBLISHED)
    pd.testing.assert_frame_equal(table, TABLE)
    pd.testing.assert_frame_equal(lines, curves(2))


def test_drawing_needs_neither_torch_nor_pyplot():
    code = "import sys, analysis.figures; print({'torch', 'timm', 'matplotlib.pyplot'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# -- verdicts


def test_a_dot_stands_at_its_change_in_the_ladders_order_whatever_the_order_of_the_table():
    figure = draw_forest(PUBLISHED.iloc[::-1], TABLE, SAY)
    dots = artists(figure, "change")
    deltas = PUBLISHED.set_index("step")["delta"]
    assert {step: dot.get_xdata()[0] for step, dot in dots.items()} == pytest.approx(deltas.to_dict())
    assert sorted(dots, key=lambda step: dots[step].get_ydata()[0]) == IDS[1:]
    assert figure.axes[0].yaxis_inverted()


def test_a_bar_spans_the_interval_and_is_left_out_where_there_is_none():
    unknown = PUBLISHED["step"] == "gelu"
    table = PUBLISHED.assign(ci_low=PUBLISHED["ci_low"].mask(unknown), ci_high=PUBLISHED["ci_high"].mask(unknown))
    bars = artists(draw_forest(table, TABLE, SAY), "interval")
    known = table.dropna(subset="ci_low").set_index("step")
    assert {step: list(bar.get_xdata()) for step, bar in bars.items()} == {
        step: [row.ci_low, row.ci_high] for step, row in known.iterrows()
    }
    assert "gelu" not in bars


def test_each_answer_has_a_marker_of_its_own_and_is_hollow_where_it_is_none():
    table = PUBLISHED.iloc[:5].assign(answer=list(Answer), verdict=list(Answer))
    figure = draw_forest(table, TABLE, SAY)
    dots = artists(figure, "change")
    assert [dots[step].get_marker() for step in table["step"]] == ["^", "v", "s", "o", "x"]
    assert [dots[step].get_markerfacecolor() == "#FFFFFF" for step in table["step"]] == [False] * 3 + [True] * 2
    told = [f"{mark} {answer}" for mark, answer in zip("▲▼=?–", Answer, strict=True)]  # noqa: RUF001
    assert list(words(figure, "verdict").values()) == told
    assert all(answer in all_text(figure) for answer in Answer)


def test_a_narrow_forest_leaves_the_answers_to_their_marks():
    table = PUBLISHED.iloc[:5].assign(answer=list(Answer), verdict=list(Answer))
    figure = draw_forest(table, TABLE, Words(title="Narrow", axis="Change (points)", width=3.3))
    assert figure.get_size_inches()[0] == 3.3
    assert "".join(words(figure, "verdict").values()) == "▲▼=?–"  # noqa: RUF001
    assert_texts_are_apart(figure)


def test_a_step_without_a_result_has_words_and_no_mark():
    figure = forest(runs(gelu=["failed"] * 3))
    told = {step: " ".join(text.split()) for step, text in words(figure, "verdict").items()}
    assert told["gelu"] == "– not tested: no result"  # noqa: RUF001
    assert told["fewer_activations"] == "– not tested: no result of gelu here"  # noqa: RUF001
    for step in ("gelu", "fewer_activations"):
        assert not any(step in artists(figure, kind) for kind in ("change", "interval", "half"))
    assert set(artists(figure, "label")) == set(IDS[1:])


def test_one_seed_gives_a_dot_without_an_interval():
    figure = forest(runs().query("seed == 0"))
    assert set(artists(figure, "change")) == set(IDS[1:])
    assert not artists(figure, "interval")
    assert "– not tested: one seed" in words(figure, "verdict").values()  # noqa: RUF001


def test_an_interval_that_would_squeeze_the_others_is_cut_with_an_arrow_and_its_numbers_stand_beside():
    figure = forest(runs(baseline_original=[20.0, 70.0, 71.0]))
    low, high = figure.axes[0].get_xlim()
    assert -20 < low < high < 20
    assert set(artists(figure, "beyond")) == {"baseline"}
    assert "goes on beyond the edge" in all_text(figure)
    assert words(figure, "number")["baseline"].startswith("+1")
    assert "goes on" not in all_text(draw_forest(PUBLISHED, TABLE, SAY))


def test_the_margin_is_a_band_about_no_change():
    (band,) = [artist for artist in draw_forest(PUBLISHED, TABLE, SAY).findobj() if artist.get_gid() == "margin"]
    x = band.get_paths()[0].vertices[:, 0]
    assert (x.min(), x.max()) == (-0.2, 0.2)


def test_the_papers_changes_are_small_and_hollow_and_may_lack_some():
    figure = forest(published=PUBLISHED.query("step != 'gelu'"))
    marks = artists(figure, "paper")
    assert set(marks) == set(IDS[1:]) - {"gelu"}
    assert {mark.get_markerfacecolor() for mark in marks.values()} == {PAPER_COLOR}
    assert marks["kernel_7"].get_xdata()[0] == pytest.approx(0.65)
    assert "the paper's change" in all_text(figure)
    assert "the paper's change" not in all_text(forest())


def test_side_branches_are_in_italics_and_a_step_says_where_it_comes_from_if_not_from_the_rung_above():
    labels = artists(draw_forest(PUBLISHED, TABLE, SAY), "label")
    assert {step for step, label in labels.items() if label.get_fontstyle() == "italic"} == SIDE_BRANCHES
    named = {step for step, label in labels.items() if "(from" in label.get_text().replace("\n", " ")}
    assert named == {"kernel_9", "kernel_11"}


# -- effects


def test_an_effect_is_a_dot_in_its_designs_panel_and_a_gap_has_a_dash():
    ladder, alone = effects(IDS[1:4], [1, -2, 3]), effects(IDS[1:3], [0.5, NAN])
    figure = draw_effects({"on the ladder": ladder, "alone": alone}, TABLE, SAY)
    dots = artists(figure, "effect")
    found = {name: dot.get_xdata()[0] for name, dot in dots.items()}
    assert found == {"0-baseline": 1, "0-stage_ratio": -2, "0-patchify_stem": 3, "1-baseline": 0.5}
    assert set(artists(figure, "none")) == {"1-stage_ratio", "1-patchify_stem"}
    assert set(words(figure, "none").values()) == {"\N{EN DASH}"}
    assert list(artists(figure, "interval")["1-baseline"].get_xdata()) == [0.0, 1.0]
    assert [dots[f"{i}-baseline"].axes for i in range(2)] == figure.axes


def test_designs_share_their_axis_and_their_rows_up_to_four_of_them():
    figure = draw_effects({name: effects(IDS[1:3], [1, 2]) for name in "abcd"}, TABLE, SAY)
    assert len({axes.get_xlim() for axes in figure.axes}) == len({axes.get_ylim() for axes in figure.axes}) == 1
    dots = artists(figure, "effect")
    assert len({dots[f"{i}-baseline"].get_ydata()[0] for i in range(4)}) == 1
    with pytest.raises(ValueError, match="5 frames"):
        draw_effects({name: effects(IDS[1:3], [1, 2]) for name in "abcde"}, TABLE, SAY)


def test_an_effect_beyond_the_axis_stands_there_in_figures():
    figure = draw_effects({"alone": effects(IDS[1:9], [70, 1, 2, 1, 1, 2, 1, 1])}, TABLE, SAY)
    assert words(figure, "value") == {"0-baseline": "+70.0 ± 0.5"}
    assert set(artists(figure, "beyond")) == {"0-baseline"}
    assert figure.axes[0].get_xlim()[1] < 10


def test_a_section_has_one_colour_in_every_figure():
    colors = {rung: to_hex(color) for rung, color in section_colors(TABLE).items()}
    assert len({colors[rung] for rung in IDS}) == 1 + len(PAPER.sections)
    answers = PUBLISHED.assign(answer=Answer.HELPS)
    drawn = {
        "roadmap": (draw_roadmap(TABLE[TABLE["adopted"].astype(bool)], Chart(title="", axis="")), "bar"),
        "forest": (draw_forest(answers, TABLE, SAY), "change"),
        "tradeoff": (draw_tradeoff(TABLE[TABLE["adopted"].astype(bool)], SAY), "dot-macs"),
    }
    for name, (figure, kind) in drawn.items():
        for rung, mark in artists(figure, kind).items():
            color = mark.get_facecolor() if kind == "bar" else mark.get_markerfacecolor()
            assert to_hex(color) == colors[rung], (name, rung)
    dots = artists(draw_effects({"a": effects(IDS[1:], range(16))}, TABLE, SAY), "effect")
    assert {name: to_hex(dot.get_markerfacecolor()) for name, dot in dots.items()} == {
        f"0-{rung}": colors[rung] for rung in IDS[1:] if f"0-{rung}" in dots
    }


# -- accuracy against cost

number = st.integers(0, 5).map(float) | st.floats(-1e6, 1e6) | st.just(NAN)


@given(st.lists(st.tuples(number, number), max_size=12), st.sampled_from([-1, 1]))
def test_no_point_of_the_front_is_dominated_and_every_other_is_dominated_by_one_of_it(points, better):
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    front = pareto_front(x, y, x_better=better)

    def dominates(a, b):
        gain, rise = better * (x[a] - x[b]), y[a] - y[b]  # no comparison with NaN holds
        return gain >= 0 and rise >= 0 and (gain > 0 or rise > 0)

    for i in range(len(points)):
        is_known = not (math.isnan(x[i]) or math.isnan(y[i]))
        if front[i]:
            assert is_known
            assert not any(dominates(j, i) for j in range(len(points)))
        elif is_known:
            assert any(front[j] and dominates(j, i) for j in range(len(points)))


def test_the_front_is_that_counted_by_hand():
    assert list(pareto_front([1, 2, 3, 3], [70, 80, 75, 80], x_better=-1)) == [True, True, False, False]
    assert list(pareto_front([1, 2, 3, 3], [70, 80, 75, 80], x_better=1)) == [False, False, False, True]
    assert list(pareto_front([1, 1, NAN], [70, 70, 90], x_better=1)) == [True, True, False]


def test_there_is_a_panel_a_cost_that_is_known_and_all_share_the_accuracy():
    figure = draw_tradeoff(tradeoff(), SAY)
    assert len(figure.axes) == 3
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert len(draw_tradeoff(tradeoff(peak_memory_mb=NAN), SAY).axes) == 2
    assert len(draw_tradeoff(TABLE, SAY).axes) == 1
    assert "No rung has both an accuracy and a cost yet" in all_text(draw_tradeoff(tradeoff(top1=NAN), SAY))


def test_a_dot_stands_at_cost_and_accuracy_hollow_where_it_is_not_adopted():
    dots = artists(draw_tradeoff(TABLE, SAY), "dot-macs")
    assert list(dots) == IDS
    for row in TABLE.itertuples():
        assert dots[row.rung].get_xdata()[0] == pytest.approx(row.macs / 1e9)
        assert dots[row.rung].get_ydata()[0] == pytest.approx(row.top1)
    assert {rung for rung, dot in dots.items() if dot.get_markerfacecolor() == PAPER_COLOR} == SIDE_BRANCHES


def test_numbers_beside_the_dots_are_those_of_the_key():
    figure = draw_tradeoff(TABLE, SAY)
    assert words(figure, "number-macs") == {rung: str(i + 1) for i, rung in enumerate(IDS)}
    assert words(figure, "label")["gelu"] == "ReLU → GELU"


def test_the_path_goes_through_the_adopted_rungs_in_order_and_has_a_gap_where_one_is_not_known():
    table = tradeoff(runs(gelu=["failed"] * 3))
    (path,) = artists(draw_tradeoff(table, SAY, ["macs"]), "path").values()
    adopted = table[table["adopted"].astype(bool)]
    np.testing.assert_allclose(path.get_xdata(), adopted["macs"] / 1e6)
    np.testing.assert_allclose(path.get_ydata(), adopted["top1"])
    assert np.isnan(path.get_ydata()).sum() == 1


def test_the_front_is_a_step_line_over_all_that_is_not_dominated():
    (line,) = artists(draw_tradeoff(TABLE, SAY), "front").values()
    assert line.get_drawstyle() == "steps-post"
    on = pareto_front(TABLE["macs"], TABLE["top1"], x_better=-1)
    corners = set(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert {(row.macs / 1e9, row.top1) for row in TABLE[on].itertuples()} <= corners


def test_a_rung_far_below_the_others_stands_at_the_edge_with_its_accuracy():
    figure = draw_tradeoff(tradeoff(runs(baseline_original=[20.0] * 3)), SAY)
    low = figure.axes[0].get_ylim()[0]
    assert low > 60
    dot = artists(figure, "dot-macs")["baseline_original"]
    assert (dot.get_ydata()[0], dot.get_marker()) == (low, "v")
    assert words(figure, "number-macs")["baseline_original"] == "1: 20.0"
    assert "below the edge" in all_text(figure)


def test_what_is_not_known_is_said():
    table = tradeoff(runs(gelu=["failed"] * 3))
    table.loc[table["rung"] == "stage_ratio", "peak_memory_mb"] = NAN
    figure = draw_tradeoff(table, SAY)
    assert words(figure, "lacking") == {"peak_memory_mb": "not known: 3"}
    assert words(figure, "label")["gelu"] == "ReLU → GELU (failed)"
    assert not {"gelu"} & set(artists(figure, "dot-macs"))


# -- learning curves


def test_a_line_is_the_mean_over_seeds_and_its_band_their_range():
    figure = draw_curves(curves(4), TABLE, SAY)
    line, band = artists(figure, "curve")["gelu"], artists(figure, "range-curve")["gelu"]
    own = curves(4).query("rung == 'gelu'").groupby("epoch")["train_loss"]
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), own.mean())
    vertices = band.get_paths()[0].vertices
    assert [vertices[:, 1].min(), vertices[:, 1].max()] == pytest.approx([own.min().min(), own.max().max()])


def test_panels_are_the_headings_with_the_rung_before_in_grey():
    figure = draw_curves(curves(4), TABLE, SAY)
    assert len(figure.axes) == len(PAPER.sections)
    assert set(artists(figure, "curve")) == set(IDS[1:])
    before = {"baseline_original", "baseline", "patchify_stem", "increase_width", "inverted_bottleneck", "kernel_7"}
    assert set(artists(figure, "before")) == before
    assert "kernel size → 7 (the rung before)" in words(figure, "label-before").values()
    assert words(figure, "label-curve")["kernel_5"] == "kernel size → 5 (not adopted)"


def test_rungs_of_a_panel_differ_in_more_than_colour():
    figure = draw_curves(curves(20), TABLE, SAY)
    kernels = [artists(figure, "curve")[rung] for rung in ("move_up_depthwise", "kernel_5", "kernel_7", "kernel_9")]
    assert len({str(line._dash_pattern) for line in kernels}) == len({line.get_color() for line in kernels}) == 4


def test_a_single_epoch_is_dots_side_by_side():
    figure = draw_curves(curves(1), TABLE, SAY)
    dots = artists(figure, "curve")
    kernels = [dots[rung].get_xdata()[0] for rung in IDS[7:12]]
    assert kernels == sorted(set(kernels))
    assert all(dot.get_marker() not in (None, "None") for dot in dots.values())
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_a_rung_without_an_epoch_says_so_and_seeds_may_have_got_unequally_far():
    lines = curves(4).query("rung != 'gelu' and not (seed == 2 and epoch > 2)")
    figure = draw_curves(lines, TABLE, SAY)
    assert "gelu" not in artists(figure, "curve")
    assert words(figure, "label-curve")["gelu"] == "ReLU → GELU: no epoch yet"
    assert len(artists(figure, "curve")["kernel_7"].get_xdata()) == 4
    assert "No run has an epoch behind it yet" in all_text(draw_curves(curves(0), TABLE, SAY))


def test_a_loss_that_explodes_neither_stretches_the_axes_nor_goes_unsaid():
    lines = curves(4)
    lines.loc[(lines["rung"] == "gelu") & (lines["epoch"] == 3), "train_loss"] = 1e9
    lines.loc[(lines["rung"] == "gelu") & (lines["epoch"] == 4), "train_loss"] = NAN
    figure = draw_curves(lines, TABLE, SAY)
    assert figure.axes[0].get_ylim()[1] < 10
    assert "goes beyond it" in all_text(figure)
    assert list(artists(figure, "curve")["gelu"].get_xdata()) == [1, 2, 3]
    assert "goes beyond it" not in all_text(draw_curves(curves(4), TABLE, SAY))


def curves_in(study):
    return curves_of(study, collect_histories(study))


def test_curves_are_read_from_the_run_folders_up_to_a_damaged_line(tmp_path, small_images, write_recipes):
    study = plan_study(
        StudySpec(
            "resnet50",
            str(write_recipes()),
            PAPER,
            runs=tmp_path,
            only=[rung.id for rung in RUNGS[:3]],
            seeds=[0, 1],
            data_root=small_images,
        )
    )
    prepare(study.planned())
    assert list(curves_in(study).columns) == list(CURVE_COLUMNS)
    assert curves_in(study).empty
    good = '{"epoch": 1, "train_loss": 2.5}\n'
    texts = {
        ("baseline", 0): good + '{"epoch": 2, "train_loss": NaN}\n{"epoch": 3, "train_loss": 1.5}\n',
        ("baseline", 1): good + '{"epoch": 2, "train_loss": 2.0}\n\x00\n{"epoch": 4, "tr',
        ("stage_ratio", 0): good,
    }
    for key, text in texts.items():
        (study.folder(study.configs[key]) / run_folder.METRICS).write_text(text)
    found = curves_in(study)
    expected = [("baseline", 0, 1), ("baseline", 0, 2), ("baseline", 0, 3), ("baseline", 1, 1), ("baseline", 1, 2)]
    assert list(found[["rung", "seed", "epoch"]].itertuples(index=False, name=None)) == [
        *expected,
        ("stage_ratio", 0, 1),
    ]
    assert list(found["train_loss"].fillna(-1)) == [2.5, -1, 1.5, 2.5, 2.0, 2.5]


def test_thinned_curves_of_a_rung_stand_at_the_same_epochs(tmp_path, small_images, write_recipes):
    study = plan_study(
        StudySpec(
            "resnet50",
            str(write_recipes()),
            PAPER,
            runs=tmp_path,
            only=[RUNGS[0].id],
            seeds=[0, 1],
            data_root=small_images,
        )
    )
    epochs = {0: 31, 1: 17}
    trails = {
        study.configs[RUNGS[0].id, seed].id: RunHistory(count, tuple(10.0 - epoch for epoch in spread(count, 4)))
        for seed, count in epochs.items()
    }
    found = curves_of(study, trails)
    assert list(found[found["seed"] == 0]["epoch"]) == [1, 11, 21, 31]
    assert list(found[found["seed"] == 1]["epoch"]) == [1, 11]
    assert list(found["train_loss"]) == pytest.approx(list(11.0 - found["epoch"]))
