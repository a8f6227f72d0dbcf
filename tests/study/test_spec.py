from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from roadmap.common.errors import UserError
from roadmap.ladder.designs import Design
from roadmap.ladder.ladder import find_ladder, read_ladder
from roadmap.ladder.schema import Match
from roadmap.recipe import MOST_SEED, read_recipe
from roadmap.study.spec import StudySpec, plan_study
from tests.conftest import write_tiny
from tests.data.test_folders import write_folder

SPEC = StudySpec("resnet50", "fashion")


def test_a_base_alone_names_the_ladder_that_has_it() -> None:
    study = plan_study(StudySpec("vgg16"))
    assert study.ladder == read_ladder("vgg16")
    assert (study.recipe.name, study.runs, study.seeds) == ("fashion", Path("runs"), study.recipe.seeds)


def test_the_ladder_may_be_named_or_given_or_be_a_path() -> None:
    plans = [plan_study(replace(SPEC, ladder=one)).configs for one in (None, "steps", "steps.yaml", read_ladder())]
    assert plans.count(plans[0]) == 4


def test_only_and_until_choose_rungs_of_the_whole_design() -> None:
    study = plan_study(replace(SPEC, until="stage_ratio", only=["baseline", "stage_ratio"]))
    assert [rung.id for rung in study.rungs] == ["baseline", "stage_ratio"]
    assert len(study.layout.rungs) == 17
    with pytest.raises(UserError, match=r"unknown rung 'gelo'\. Did you mean 'gelu'\?"):
        plan_study(replace(SPEC, only=["gelo"]))


def test_a_matched_ladder_is_counted_as_it_is_trained() -> None:
    study = plan_study(replace(SPEC, match=Match(to="base"), seeds=[0], only=["baseline", "depthwise_conv"]))
    start, depthwise = (run.macs for run in study.planned())
    assert depthwise == pytest.approx(start, rel=0.1)
    assert all(rung.is_matched for rung in study.rungs)


def test_a_ladder_of_techniques_has_those_of_the_recipe() -> None:
    study = plan_study(replace(SPEC, ladder="recipe"))
    assert study.configs == plan_study(replace(SPEC, ladder=find_ladder("recipe").towards("fashion"))).configs
    assert [rung.id for rung in study.rungs] == ["baseline_original", "adamw", "label_smoothing"]


def test_a_design_and_references_are_part_of_the_specification() -> None:
    study = plan_study(replace(SPEC, design=Design("leave-one-out"), references=["resnext50"], seeds=[0]))
    assert study.design == "leave-one-out"
    assert study.rungs[-1].id == "resnext50"


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_seeds_that_are_none_are_refused(seeds: list[int]) -> None:
    with pytest.raises(UserError, match="must be different whole numbers from 0 to"):
        plan_study(replace(SPEC, seeds=seeds))


# -- what is known before anything runs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes."""
    root = tmp_path_factory.mktemp("images")
    write_folder(root, images=8)
    return root


@pytest.fixture
def fresh_recipes() -> Iterator[None]:
    """Have recipes read anew that were written anew."""
    yield
    read_recipe.cache_clear()


def plan_folder(recipes: Path, images: Path, **settings: object) -> None:
    """Plan two rungs with BatchNorm on a folder of images."""
    recipe = write_tiny(recipes, dataset="folder", **{"batch_size": 8} | settings)
    plan_study(StudySpec("resnet50", recipe, until="baseline", data_root=images, runs=recipes))


@pytest.mark.usefixtures("fresh_recipes")
@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("autoaug", "Unknown AA policy autoaug"),
        ("v1", "Unknown AA policy v1"),
        ("augmix-q3", "Unknown AugMix"),
        ("originals-mstd0.5", "Unknown AA policy originals"),
    ],
)
def test_a_policy_that_timm_does_not_know_is_refused(policy: str, reason: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"randaugment is '{policy}', which timm cannot draw from \({reason}"):
        plan_folder(tmp_path, images, randaugment=policy)


@pytest.mark.usefixtures("fresh_recipes")
@pytest.mark.parametrize("policy", ["rand-x9", "rand-m9-q3", "rand-m-n2", "random"])
def test_a_misspelt_randaugment_is_refused_with_its_line(policy: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"tiny\.yaml:\d+: randaugment is '{policy}', but is timm's name for one"):
        plan_folder(tmp_path, images, randaugment=policy)


@pytest.mark.usefixtures("fresh_recipes")
@pytest.mark.parametrize(
    "policy",
    ["rand-m9-mstd0.5-inc1", "rand-m9-n3-p0.5-tweights", "original", "originalr", "v0", "v0r", "3a", "augmix-m3-w3"],
)
def test_every_policy_of_timms_may_be_drawn_from(policy: str, images: Path, tmp_path: Path) -> None:
    plan_folder(tmp_path, images, randaugment=policy)


@pytest.mark.usefixtures("fresh_recipes")
def test_a_policy_whose_operation_fails_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no bits")

    from timm.data import auto_augment

    monkeypatch.setitem(auto_augment.NAME_TO_OP, "PosterizeIncreasing", fail)
    with pytest.raises(UserError, match=r"which timm cannot draw from \(no bits\)"):
        plan_folder(tmp_path, images, randaugment="rand-m9-mstd0.5-inc1")


@pytest.mark.usefixtures("fresh_recipes")
@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"accumulate": 8}])
def test_batch_norm_over_one_value_is_refused(settings: dict[str, int], images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leaves BatchNorm one image at a time, and one value of each channel"):
        plan_folder(tmp_path, images, image_size=32, **settings)


@pytest.mark.usefixtures("fresh_recipes")
@pytest.mark.parametrize("settings", [{"image_size": 64, "accumulate": 8}, {"image_size": 32, "accumulate": 4}])
def test_batch_norm_over_two_values_is_not(settings: dict[str, int], images: Path, tmp_path: Path) -> None:
    plan_folder(tmp_path, images, **settings)


@pytest.mark.usefixtures("fresh_recipes")
def test_the_pieces_of_several_processes_are_looked_at_too(images: Path, tmp_path: Path) -> None:
    recipe = write_tiny(tmp_path, dataset="folder", batch_size=8, accumulate=2, image_size=32)
    (config, *_) = plan_study(StudySpec("resnet50", recipe, data_root=images)).configs.values()
    with pytest.raises(UserError, match="batch_size 8 / 4 processes x 2 pieces leaves BatchNorm one image at a time"):
        config.check_shared(4)


@pytest.mark.usefixtures("fresh_recipes")
@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1])
def test_a_recipes_seeds_have_the_bound_of_the_command_lines(seed: int, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"tiny\.yaml:\d+: seeds\.0 is {seed}: .* should be"):
        plan_folder(tmp_path, images, seeds=[seed])
    with pytest.raises(UserError, match=rf"seeds are {seed}, .* from 0 to {MOST_SEED}"):
        plan_study(replace(SPEC, seeds=[seed]))
    assert plan_study(replace(SPEC, seeds=[MOST_SEED], only=["baseline"])).seeds == (MOST_SEED,)


@pytest.mark.usefixtures("fresh_recipes")
def test_the_plan_says_what_an_image_folder_holds_that_is_not_used(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_folder(root, images=8)
    (root / "train/a/notes.txt").write_text("")
    recipe = write_tiny(tmp_path, dataset="folder", batch_size=8)
    notes = plan_study(StudySpec("resnet50", recipe, data_root=root)).notes
    assert [note for note in notes if "train/a/notes.txt" in note]
