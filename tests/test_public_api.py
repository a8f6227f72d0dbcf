import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import roadmap
from analysis.run_frames import collect
from roadmap import StudySpec, plan_study, read_ladder, read_recipe, train
from roadmap.common.errors import UserError
from roadmap.jobs.launcher import prepare
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, last_attempt
from roadmap.runs.claims import take
from tests.samples import LADDER

DESIGNED = [
    "read_ladder",
    "read_recipe",
    "plan_study",
    "train",
    "NetConfig",
    "BlockConfig",
    "build_model",
    "count_macs",
    "change_blocks",
    "own_layer",
    "load_model",
    "Ladder",
    "Recipe",
    "Rung",
    "count_params",
    "count_activations",
]


def test_dir_lists_every_public_name_and_each_is_there() -> None:
    assert set(DESIGNED) <= set(dir(roadmap))
    assert all(getattr(roadmap, name) is not None for name in dir(roadmap))
    assert all(getattr(roadmap, name).__doc__ for name in dir(roadmap))


def test_a_ladder_is_read_by_name_and_by_path_as_text_or_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LADDER)
    assert list(read_ladder("vgg16").bases) == ["vgg16"]
    assert read_ladder() == read_ladder("steps")
    assert read_ladder(str(tmp_path / "mine.yaml")) == read_ladder(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"unknown ladder 'vgg'\. Did you mean 'vgg16'\? Known: steps"):
        read_ladder("vgg")


def test_a_study_takes_two_calls_from_its_name_to_a_frame(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    spec = StudySpec("resnet50", write_recipes(), seeds=(0, 1), data_root=str(small_images), runs=str(tmp_path))
    frame = collect(plan_study(spec))
    assert len(frame) == 17 * 2
    assert set(frame["state"]) == {"missing"}


def test_paths_may_be_text(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> None:
    recipe = write_recipes()
    assert read_recipe(str(recipe)) == read_recipe(recipe)
    as_text, as_path = (
        plan_study(StudySpec("resnet50", kind(recipe), data_root=kind(small_images), runs=kind(tmp_path)))
        for kind in (str, Path)
    )
    assert as_text.configs == as_path.configs
    assert as_text.planned() == as_path.planned()


def test_a_planned_run_is_trained_once_and_collected(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    recipe = write_recipes(epochs=1, warmup_epochs=0)
    study = plan_study(
        StudySpec("resnet50", recipe, only=["baseline"], seeds=[0], data_root=small_images, runs=tmp_path)
    )
    (run,) = study.planned()
    row = train(run, data_root=str(small_images), device="cpu")
    assert row["state"] == "finished"
    (collected,) = collect(study).to_dict("records")
    assert (collected["top1"], collected["macs"], collected["params"]) == (row["top1"], run.macs, run.params)
    written = (run.folder / run_folder.RESULT).stat().st_mtime_ns
    assert train(run, data_root=small_images) == row
    assert (run.folder / run_folder.RESULT).stat().st_mtime_ns == written
    attempt = last_attempt(run.folder)
    assert attempt is not None
    assert attempt.end == "finished"


def test_a_run_that_a_job_is_at_is_not_trained_beside_it(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    study = plan_study(StudySpec("resnet50", write_recipes(), only=["gelu"], data_root=small_images, runs=tmp_path))
    run = prepare(study.planned())[0]
    with (
        take(run.folder, Worker.here(), lambda _: None),
        pytest.raises(UserError, match="a job is at work on it"),
    ):
        train(run, data_root=small_images)


def test_a_job_that_the_former_version_put_into_a_queue_runs(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pickle names `roadmap.job.Job`, and runs/first and runs/second; made by the version of 2026-11."""
    job = pickle.loads((Path(__file__).parent / "golden" / "job.pkl").read_bytes())
    assert job.folders == (Path("runs/first"), Path("runs/second"))
    assert (job.launch, job.max_retries, job.needs_gpu, job.loggers) == ("launch", 1, False, ())
    recipe = write_recipes(epochs=1, warmup_epochs=0, seeds=[0, 1])
    study = plan_study(StudySpec("resnet50", recipe, only=["baseline"], data_root=small_images, runs=tmp_path / "made"))
    runs = prepare(study.planned())
    (tmp_path / "made").rename(tmp_path / "runs")
    job.folders = tuple(Path("runs") / run.folder.name for run in runs)  # a run's folder has its name
    (tmp_path / "images").symlink_to(small_images)
    monkeypatch.chdir(tmp_path)
    job()
    rows = [run_folder.read_result(folder) for folder in job.folders]
    assert [row and row["state"] for row in rows] == ["finished", "finished"]
