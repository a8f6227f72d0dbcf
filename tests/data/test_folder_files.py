import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from roadmap.common import fingerprints
from roadmap.common.errors import UserError
from roadmap.data.datasets import describe_data
from roadmap.data.folder_files import FolderReader, list_files
from roadmap.recipe import Recipe
from tests.conftest import TINY
from tests.data.test_folders import FOLDER, open_data, picture, stored, write_folder

RECIPE = Recipe(**TINY | FOLDER)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with the classes a and b, to copy."""
    root = tmp_path_factory.mktemp("images")
    write_folder(root, images=4)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own for what is remembered."""
    monkeypatch.setattr(fingerprints, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return shutil.copytree(images, tmp_path / "data")


def fingerprint(root: Path, *, checksum: bool = False) -> str:
    return describe_data(RECIPE, root, checksum=checksum).fingerprint


# -- one list for plan, fingerprint and training


def test_a_class_that_is_a_link_counts_and_is_trained_on(root: Path) -> None:
    for part in ("train", "val"):
        shutil.move(root / part / "b", root / f"{part}-b")
        (root / part / "b").symlink_to(Path("..") / f"{part}-b")
    data = describe_data(RECIPE, root)
    assert (data.num_classes, data.train_images) == (2, 8)
    labels = [label for _, batch in open_data(root, RECIPE, workers=0).epoch(0, 0) for label in batch.tolist()]
    assert sorted(labels) == [0] * 4 + [1] * 4


def test_other_images_behind_a_link_are_another_data_set(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "train/b", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    (tmp_path / "other/3.jpg").unlink()
    found = set()
    for name in ("one", "other"):
        (root / "train/b").unlink(missing_ok=True)
        (root / "train/b").symlink_to(tmp_path / name)
        found.add(fingerprint(root))
    assert len(found) == 2


def test_images_anywhere_below_a_class_are_of_it(root: Path) -> None:
    for label in "ab":
        (root / f"train/{label}/images/more").mkdir(parents=True)
        (root / f"train/{label}/0.jpg").rename(root / f"train/{label}/images/more/0.jpg")
    files = list_files(root)
    assert files.classes == ("a", "b")
    assert [(file.path, file.label) for file in files.train if "images" in file.path] == [
        ("train/a/images/more/0.jpg", 0),
        ("train/b/images/more/0.jpg", 1),
    ]


def test_numbers_in_names_count_as_numbers_as_in_timm(root: Path) -> None:
    for part in ("train", "val"):
        for old, new in (("a", "class10"), ("b", "class2")):
            (root / part / old).rename(root / part / new)
    (root / "train/class2/0.jpg").rename(root / "train/class2/10.jpg")
    files = list_files(root)
    assert files.classes == ("class2", "class10")
    assert [file.path for file in files.train[:4]] == [f"train/class2/{number}.jpg" for number in (1, 2, 3, 10)]
    file, label = FolderReader(root, files.train)[4]
    with file:
        assert (label, Path(file.name).relative_to(root).as_posix()) == (1, "train/class10/0.jpg")


# -- the fingerprint


def test_images_replaced_under_the_same_names_are_another_data_set(root: Path) -> None:
    before = fingerprint(root)
    (root / "train/a/0.jpg").write_bytes(stored(picture(seed=99)))
    assert fingerprint(root) != before


def test_a_later_time_alone_makes_another_data_set_unless_content_is_asked_for(root: Path) -> None:
    before, content = fingerprint(root), fingerprint(root, checksum=True)
    os.utime(root / "val/a/0.jpg", (1, 1))
    assert fingerprint(root) != before
    assert fingerprint(root, checksum=True) == content


def test_the_content_is_known_though_size_and_time_are_the_same(root: Path, cache: Path) -> None:
    image = root / "train/a/0.jpg"
    about = image.stat()
    before = fingerprint(root, checksum=True)
    data = bytearray(image.read_bytes())
    data[-30] ^= 1
    image.write_bytes(data)
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns))
    shutil.rmtree(cache)
    assert fingerprint(root, checksum=True) != before


def test_content_is_read_once_for_the_same_names_sizes_and_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(root, checksum=True)
    monkeypatch.setattr("roadmap.data.folder_files.checksum", lambda path: pytest.fail(f"{path} is read again"))
    assert fingerprint(root, checksum=True) == before


def test_a_copy_that_keeps_times_is_the_same_data_set_and_any_is_by_content(root: Path, tmp_path: Path) -> None:
    kept = shutil.copytree(root, tmp_path / "kept")
    fresh = shutil.copytree(root, tmp_path / "fresh", copy_function=shutil.copyfile)
    for image in fresh.rglob("*.jpg"):
        os.utime(image, (2, 2))
    assert fingerprint(kept) == fingerprint(root)
    assert fingerprint(fresh) != fingerprint(root)
    assert fingerprint(fresh, checksum=True) == fingerprint(root, checksum=True)


# -- what is left out, and what is refused


def test_every_kind_of_image_counts(root: Path) -> None:
    for ending in (".webp", ".BMP", ".tiff", ".PNG"):
        (root / f"train/a/more{ending}").write_bytes(stored(picture(), ending[1:].upper()))
    assert describe_data(RECIPE, root).train_images == 12
    list(open_data(root, RECIPE, workers=0).epoch(0, 0))


def test_what_is_no_image_or_hidden_is_left_out_and_named(root: Path) -> None:
    (root / "train/.ipynb_checkpoints").mkdir()
    (root / "train/.ipynb_checkpoints/0.jpg").write_bytes(b"")
    (root / "train/a/._0.jpg").write_bytes(b"of another system")
    (root / "train/a/notes.txt").write_text("a")
    (root / "val/empty").mkdir()
    files = list_files(root)
    assert (files.classes, len(files.train)) == (("a", "b"), 8)
    (note,) = files.notes()
    assert "4 entries are left out" in note
    for name in ("train/.ipynb_checkpoints", "train/a/._0.jpg", "train/a/notes.txt"):
        assert name in note


def test_a_folder_of_images_alone_leaves_nothing_out(root: Path) -> None:
    assert list_files(root).notes() == ()


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a link to nothing": (
        lambda root: (root / "train/a/9.jpg").symlink_to("nothing"),
        r"train/a/9\.jpg: cannot be read \(No such file",
    ),
    "an empty image": (lambda root: (root / "val/b/0.jpg").write_bytes(b""), r"val/b/0\.jpg: is empty"),
    "a pipe": (lambda root: os.mkfifo(root / "val/b/9.jpg"), r"val/b/9\.jpg: is no file"),
    "a link to above": (
        lambda root: (root / "val/b/up").symlink_to(root / "val"),
        r"a link to a folder that it lies",
    ),
    "an image in no class": (
        lambda root: (root / "train/a/0.jpg").rename(root / "train/0.jpg"),
        r"train/0\.jpg: an image that is in no class",
    ),
    "one class": (
        lambda root: [shutil.rmtree(root / part / "b") for part in ("train", "val")],
        r"'folder' has one class alone",
    ),
    "a class of one part": (lambda root: shutil.rmtree(root / "val/b"), r"differ in classes: b in one only"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_trained_on_is_refused_with_its_place(damage: str, root: Path) -> None:
    change, message = DAMAGES[damage]
    change(root)
    with pytest.raises(UserError, match=message):
        describe_data(RECIPE, root)


@pytest.mark.parametrize("place", ["train/b", "train/b/0.jpg"])
def test_what_may_not_be_read_is_refused(place: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() == 0:  # who may read everything
        scandir, access = os.scandir, os.access

        def refuse(path: Path) -> object:
            if Path(path) == root / place:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root / place and access(path, mode))
    else:
        (root / place).chmod(0)
    with pytest.raises(UserError, match=rf"{place}: cannot be read \(Permission denied\)"):
        describe_data(RECIPE, root)
