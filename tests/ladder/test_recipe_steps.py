from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from analysis.study_results import StudyResults
from roadmap.common.errors import UserError
from roadmap.common.paths import RECIPES
from roadmap.ladder.designs import DESIGNS, Design, lay_out
from roadmap.ladder.ladder import Ladder, find_ladder, read_ladder
from roadmap.ladder.recipe_steps import RECIPE_STEPS, adamw, longer_training
from roadmap.ladder.rung import recipe_changes
from roadmap.networks.families import BASES
from roadmap.recipe import Recipe, read_plain, read_recipe
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train
from run_ladder import main
from tests.conftest import write_tiny
from tests.samples import make_recipe

# Recipes with a plain counterpart of their own: those that a ladder of techniques can lead to.
TARGETS = [name for name in sorted(path.stem for path in RECIPES.glob("*.yaml")) if read_recipe(name).plain != name]
TECHNIQUES = [name for name in RECIPE_STEPS if name != "enhanced_recipe"]
LADDER = find_ladder("recipe")
MIXED = """\
bases:
  resnet50: {label: ResNet-50, result: End}
rungs:
  - {id: start, label: start, recipe: plain}
  - {id: adamw, label: AdamW, step: adamw}
  - {id: big_kernel, label: bigger kernel, step: kernel_size, args: {size: 5}}
  - {id: mixup, label: mixup, step: mixup}
  - {id: cutmix, label: cutmix, step: cutmix}
  - {id: smoothing, label: label smoothing, step: label_smoothing}
"""


def take(names: list[str], recipe: Recipe, target: Recipe) -> Recipe:
    for name in names:
        recipe = RECIPE_STEPS[name](recipe, target=target)
    return recipe


@pytest.fixture
def mixed(tmp_path: Path) -> Ladder:
    (tmp_path / "mixed.yaml").write_text(MIXED)
    return read_ladder(tmp_path / "mixed.yaml")


# -- the techniques


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", TARGETS)
def test_techniques_lead_exactly_to_the_recipe_in_any_order(name: str, base: str) -> None:
    target, stream = read_recipe(name, base), Random(0)
    plain = read_plain(target, base)
    for _ in range(20):
        order = stream.sample(TECHNIQUES, len(TECHNIQUES))
        assert take(order, plain, target).training() == target.training(), order


def test_no_two_techniques_take_the_same_setting_but_what_mixup_and_cutmix_share_and_lengths() -> None:
    plain = make_recipe(epochs=3)
    other = make_recipe(
        epochs=7, optimizer="sgd", lr=0.5, mixup=0.3, cutmix=0.4, mixup_switch_prob=0.1, randaugment="rand-m5",
        random_erasing=0.6, label_smoothing=0.2, drop_path=0.3, warmup_epochs=1.0, decay_epochs=2.0,
    )  # fmt: skip
    taken = [field for name in TECHNIQUES for field in take([name], plain, other).differences(plain)]
    assert {field for field in taken if taken.count(field) > 1} == {"mixup_switch_prob", "decay_epochs"}
    assert set(taken) == set(other.differences(plain))


def test_a_longer_training_stretches_the_schedule_and_a_schedule_fits_the_training() -> None:
    plain, target = read_recipe("imagenet_original"), read_recipe("imagenet")
    longer = longer_training(plain, target=target)
    assert (longer.epochs, longer.decay_epochs, longer.optimizer) == (300, 100, "sgd")
    short = adamw(plain, target=target)
    assert (short.epochs, short.warmup_epochs, short.batch_size, short.lr) == (90, 6, 4096, 4e-3)


# -- the ladder of techniques


@pytest.mark.parametrize("base", LADDER.bases)
@pytest.mark.parametrize("name", ["imagenet", "fashion_modern"])
def test_the_ladder_has_every_technique_and_leads_to_the_recipe_itself(name: str, base: str) -> None:
    target = read_recipe(name, base)
    rungs = LADDER.towards(name).climb(base)
    assert [rung.step for rung in rungs] == [None, *TECHNIQUES]
    assert rungs[0].recipe(target, base) == read_plain(target, base)
    assert rungs[-1].recipe(target, base) == target
    assert {rung.net for rung in rungs} == {BASES[base]}
    changes = recipe_changes(rungs, target, base)
    assert list(changes) == [rung.id for rung in rungs[1:]]
    assert changes["longer_training"]["epochs"] == (read_plain(target, base).epochs, target.epochs)


def test_its_ends_are_runs_of_the_papers_ladder() -> None:
    runs = [
        [run.config.id for run in plan_study(StudySpec("resnet50", "fashion", ladder, runs=Path("runs"))).planned()]
        for ladder in (LADDER.towards("fashion"), read_ladder())
    ]
    assert [config for config in runs[0] if config in runs[1]] == [
        config for seed in range(6) for config in (runs[0][3 * seed], runs[0][3 * seed + 2])
    ]


def test_a_technique_that_the_recipe_lacks_has_no_rung_and_a_note_says_so() -> None:
    layout = lay_out(LADDER.towards("fashion"), "resnet50", Design())
    assert [rung.id for rung in layout.rungs] == ["baseline_original", "adamw", "label_smoothing"]
    assert layout.rungs[-1].recipe(read_recipe("fashion")) == read_recipe("fashion")
    assert layout.notes[0] == "Under recipe 'fashion' 'longer_training' changes nothing, so it has no rung."
    assert len(layout.notes) == 6
    left_out = lay_out(LADDER.towards("fashion"), "resnet50", Design("leave-one-out")).rungs
    assert [rung.id for rung in left_out] == ["all_steps", *(f"without_{rung.id}" for rung in layout.rungs[1:])]


def test_a_recipe_between_is_named_after_its_start_and_its_steps() -> None:
    rungs = LADDER.climb("resnet50")
    assert rungs[2].recipe(read_recipe("imagenet")).name == "imagenet_original + longer_training + adamw"


def test_a_setting_that_no_technique_takes_is_named(tmp_path: Path, small_images: Path) -> None:
    path = write_tiny(tmp_path, plain={"hflip": 0.5}, mixup=0.2)
    study = plan_study(StudySpec("resnet50", path, LADDER, runs=tmp_path, data_root=small_images))
    (note,) = (note for note in study.notes if "No technique" in note)
    assert "takes hflip from recipe 'tiny'" in note
    assert not [
        note
        for note in plan_study(StudySpec("resnet50", "fashion", LADDER, runs=tmp_path)).notes
        if "technique" in note
    ]


def test_a_recipe_that_is_not_there_is_refused_before_any_rung() -> None:
    with pytest.raises(UserError, match=r"^unknown recipe 'fashion_moderm'\. Did you mean 'fashion_modern'\?"):
        LADDER.towards("fashion_moderm")


def test_a_design_of_an_image_folders_recipe_can_be_planned_without_the_images(tmp_path: Path) -> None:
    options = f"plan --base resnet50 --steps recipe --recipe imagenet --design leave-one-out --runs {tmp_path}"
    assert main(options.split()) == 0


def test_plan_and_verify_say_what_each_rung_changes_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (f"plan --runs {tmp_path}", "verify"):
        options = f"{command} --base resnet50 --steps recipe --recipe imagenet"
        assert main(options.split()) == 0
        words = " ".join(capsys.readouterr().out.split())
        assert "What changes in training, up to recipe 'imagenet'" in words
        assert "longer_training epochs 90 → 300, decay_epochs 30.0 → 100.0" in words
        assert "randaugment randaugment null → rand-m9-mstd0.5-inc1, color_jitter 0.0 → 0.4" in words


# -- ladders of both kinds of steps


def test_every_design_takes_techniques_as_it_takes_steps_on_the_network(mixed: Ladder) -> None:
    target = replace(read_recipe("fashion"), mixup=0.8, cutmix=1.0)
    steps = ("adamw", "big_kernel", "mixup", "cutmix", "smoothing")
    whole = mixed.climb("resnet50")[-1]
    for name in DESIGNS:
        named = {"pairs": ("big_kernel", "mixup"), "fractional": ("adamw", "big_kernel", "mixup")}
        design = Design(name, named.get(name, ()))
        rungs = {rung.id: rung for rung in lay_out(mixed, "resnet50", design).rungs}
        if name == "leave-one-out":
            assert list(rungs) == ["all_steps", *(f"without_{step}" for step in steps)]
            assert rungs["without_mixup"].net == whole.net
            assert rungs["without_mixup"].recipe(target).mixup == 0
            assert rungs["without_mixup"].recipe(target).cutmix == 1
            assert rungs["without_big_kernel"].net == BASES["resnet50"]
            assert rungs["without_big_kernel"].recipe_steps == whole.recipe_steps
        if name == "add-one":
            assert list(rungs) == ["start", *(f"only_{step}" for step in steps)]
            assert rungs["only_mixup"].recipe(target).differences(read_plain(target)) == {"mixup": (0.0, 0.8)}
        if name == "orders":
            assert (next(iter(rungs)), list(rungs)[-1]) == ("start", "all_steps")
        if name == "fractional":
            assert {rung.net == whole.net for rung in rungs.values()} == {True, False}
            assert {rung.recipe(target).mixup for rung in rungs.values()} == {0.0, 0.8}
        if name == "pairs":
            assert list(rungs) == ["start", "only_big_kernel", "only_mixup", "big_kernel_and_mixup"]
            assert rungs["big_kernel_and_mixup"].net == whole.net


def test_a_step_that_takes_the_whole_recipe_is_what_the_others_are_tried_under(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MIXED.replace("step: adamw", "step: enhanced_recipe"))
    ladder = read_ladder(tmp_path / "mine.yaml").towards("fashion_modern")
    layout = lay_out(ladder, "resnet50", Design("add-one"))
    assert [rung.id for rung in layout.rungs] == ["start", "adamw", "only_big_kernel"]


def test_a_mixed_ladder_trains_and_is_judged(mixed: Ladder, tmp_path: Path, small_images: Path) -> None:
    path = write_tiny(tmp_path, plain={"mixup": 0.0}, mixup=0.8, epochs=1, seeds=[0, 1])
    small = mixed.model_copy(update={"rungs": tuple(mixed.rungs[place] for place in (0, 2, 3))})
    for design in ("ladder", "leave-one-out"):
        study = plan_study(
            StudySpec("resnet50", path, small, Design(design), runs=tmp_path / "runs", data_root=small_images)
        )
        for planned in study.planned():
            if not planned.folder.exists():
                planned.folder.mkdir(parents=True)
                train(planned.config, planned.folder, data_root=small_images, device="cpu")
        judged = StudyResults(study).verdicts
        judged = judged[judged["metric"] == "top1"]
        assert judged["step"].tolist() == [rung.id for rung in study.rungs[1:]]
        assert judged["delta"].notna().all()
        assert (judged["verdict"].str.len() > 0).all()
