"""Data sets by the name of one of timm's readers: what they are, and reading them.

`hfds/NAME` is a data set of Hugging Face's `datasets`, `wds/NAME` a folder of webdataset's shards with an _info.json,
`tfds/NAME` one of `tensorflow-datasets`. The first is read image by image and keeps every promise that image folders
keep; `roadmap.data.streams` says what holds for the other two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from roadmap.common.errors import UserError
from roadmap.common.fingerprints import checksum, remember
from roadmap.runs.config import DataConfig

if TYPE_CHECKING:
    from roadmap.recipe import Recipe

# Raised when images that workers decode, of folders too, would give other batches, or are known by something else. It
# is part of their fingerprint.
FOLDER_VERSION = 4
CONTENT = "content-"  # what a fingerprint begins with that is of the images' content
PACKAGES = {"hfds": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}


class Source(NamedTuple):
    """Where a recipe's images are, as its settings and `--data` say."""

    dataset: str
    root: Path | None
    train_split: str
    test_split: str
    image_key: str | None
    label_key: str | None

    @classmethod
    def of(cls, recipe: Recipe, root: Path | None) -> Source:
        """Return that of a recipe."""
        return cls(
            recipe.dataset, root, recipe.train_split, recipe.test_split, recipe.image_key, recipe.label_key
        )  # fmt: skip

    def open(self, split: str, **options: Any) -> Any:
        """Return timm's reader of a split.

        Raises:
            UserError: If its package is missing, or the package cannot read the data set, for whatever reason it says.
        """
        kind = self.dataset.split("/")[0]
        if find_spec(PACKAGES[kind]) is None:
            raise UserError(
                f"dataset '{self.dataset}' needs the package {PACKAGES[kind]}. Install it: pip install -e '.[readers]'"
            )
        from timm.data.readers import create_reader

        root = None if self.root is None else str(self.root)
        keys = {"input_key": self.image_key, "target_key": self.label_key}
        if kind == "wds":
            options["input_img_mode"] = ""  # as it is stored: `roadmap.data.decoding` makes colours of it
        try:
            return create_reader(self.dataset, root, split, **keys, **options)
        except Exception as error:  # each package has its own
            where = f" in {self.root}" if self.root else ""
            reason = next(iter(str(error).strip().splitlines()), "no reason given")  # tfds goes on to list all it knows
            raise UserError(
                f"dataset '{self.dataset}', split '{split}'{where}: cannot be read "
                f"({type(error).__name__}: {reason}). See dataset, train_split, "
                "test_split, image_key and label_key in the recipe, and --data."
            ) from error


class Description(NamedTuple):
    """What a data set is, and the names of its classes."""

    config: DataConfig
    classes: tuple[str, ...]


@cache
def describe_source(source: Source, by_content: bool = False) -> Description:
    """Say what a data set is, from what is cheap: names, sizes, times, labels that lie apart from the images.

    Args:
        source: Where it is.
        by_content: Whether to know it by the images' content instead.

    Raises:
        UserError: If it cannot be read, has no images, or does not tell its classes.
    """
    kind = source.dataset.split("/")[0]
    if kind == "wds" and source.root is None:
        raise UserError(f"dataset '{source.dataset}': say where its shards and _info.json lie: --data DIR.")
    readers = [source.open(split) for split in (source.train_split, source.test_split)]
    content = [{"hfds": _rows, "wds": _shards, "tfds": _versions}[kind](source, reader) for reader in readers]
    classes = {"hfds": _hfds_classes, "wds": _wds_classes, "tfds": _tfds_classes}[kind](source, *readers)
    images = [reader.num_samples for reader in readers]
    if not all(images):
        raise UserError(
            f"dataset '{source.dataset}': {images[0]} images to train on and {images[1]} for the test, but there must "
            "be some of each. See train_split and test_split in the recipe."
        )

    said = [FOLDER_VERSION, source.dataset, source[2:], classes, images]
    fingerprint = _hash([*said, content])
    if by_content:
        fingerprint = CONTENT + _hash([*said, _content(source, readers, fingerprint)])
    return Description(DataConfig(source.dataset, fingerprint, len(classes), 3, images[0]), classes)


def _content(source: Source, readers: Sequence[Any], fingerprint: str) -> str:
    """Return a hash of the images' content, which is read once for each fingerprint of names, sizes and times."""
    kind = source.dataset.split("/")[0]
    if kind == "tfds":
        raise UserError(
            f"--checksum: dataset '{source.dataset}' is known by its version, which says what it holds. Leave "
            "--checksum out."
        )
    read = {"hfds": _row_contents, "wds": _shard_contents}[kind]
    tables = [file["filename"] for reader in readers if kind == "hfds" for file in reader.dataset.cache_files]
    key = _hash([fingerprint, *(_stamp(Path(table)) for table in tables)])
    return remember(key, lambda: _hash([read(source, reader) for reader in readers]))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, int]:
    """Return a file's size and when it was last changed, in seconds: copies and archives keep no more of it."""
    about = path.stat()
    return about.st_size, int(about.st_mtime)


def _rows(source: Source, reader: Any) -> list[str]:
    """Return checksums of a split's labels, which do not lie between its images, and of the images' sizes."""
    import pyarrow.compute as pc

    stored = reader.dataset.data.column(reader.image_key)
    sizes = pc.fill_null(pc.binary_length(pc.struct_field(stored, "bytes")), 0).to_numpy().astype(np.int64)
    stamps = [_stamp(Path(path)) for path in _paths_of(stored)]
    labels = _hfds_labels(source, reader)
    return [*(hashlib.sha256(array.tobytes()).hexdigest() for array in (labels, sizes)), _hash(stamps)]


def _paths_of(stored: Any) -> list[str]:
    """Return the paths of a split's images that lie in files of their own."""
    import pyarrow.compute as pc

    alone = pc.is_null(pc.struct_field(stored, "bytes"))
    paths: list[str] = pc.struct_field(stored, "path").filter(alone).to_pylist()
    return paths


def _row_contents(source: Source, reader: Any) -> list[str]:
    """Return a checksum of a split's labels and one of all its images."""
    import pyarrow.compute as pc

    stored, digest = reader.dataset.data.column(reader.image_key), hashlib.sha256()
    for chunk in pc.struct_field(stored, "bytes").iterchunks():
        for image in chunk:
            digest.update(hashlib.sha256(image.as_buffer() if image.is_valid else b"").digest())
    files = [checksum(Path(path)) for path in _paths_of(stored)]
    return [hashlib.sha256(_hfds_labels(source, reader).tobytes()).hexdigest(), digest.hexdigest(), *files]


def _hfds_labels(source: Source, reader: Any) -> Any:
    labels = reader.dataset.data.column(reader.label_key).to_numpy()
    if labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise UserError(
            f"dataset '{source.dataset}', split '{reader.split}': '{reader.label_key}' is not a number from 0 up for "
            "every image. Choose another label_key or split."
        )
    return labels.astype(np.int64)


def _hfds_classes(source: Source, *readers: Any) -> tuple[str, ...]:
    """Return the names that the feature has, else numbers up to the largest label (timm 1.0.20 wants names)."""
    most = max(int(_hfds_labels(source, reader).max(initial=-1)) for reader in readers)
    return tuple(readers[0].class_to_idx) or tuple(map(str, range(most + 1)))


def _shards(source: Source, reader: Any) -> list[tuple[str, int, int]]:
    """Return the names, sizes and times of a split's shards."""
    return [(path.name, *_stamp(path)) for path in _shard_paths(source, reader)]


def _shard_contents(source: Source, reader: Any) -> list[tuple[str, str]]:
    """Return the names and checksums of a split's shards."""
    return [(path.name, checksum(path)) for path in _shard_paths(source, reader)]


def _shard_paths(source: Source, reader: Any) -> list[Path]:
    """Return where a split's shards are."""
    assert source.root is not None
    paths = [source.root / name for name in reader.split_info.filenames]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is in _info.json or the split, but not there. Put a whole copy in its place.")
    return paths


def _wds_classes(source: Source, *readers: Any) -> tuple[str, ...]:
    """Return the classes that _info.json names or counts; shards do not tell without being read."""
    info = readers[0].info
    if "classes" in info:
        return tuple(map(str, info["classes"]))
    if "num_classes" in info:
        return tuple(map(str, range(int(info["num_classes"]))))
    raise UserError(
        f'{source.root}/_info.json: says nothing of the classes. Add "classes": [names in the labels\' order], or '
        '"num_classes": their number.'
    )


def _versions(_: Source, reader: Any) -> str:
    return str(reader.builder.info.full_name)


def _tfds_classes(source: Source, *readers: Any) -> tuple[str, ...]:
    """Return the names that the feature has."""
    (reader, _) = readers
    if not reader.class_to_idx:
        raise UserError(f"dataset '{source.dataset}': '{reader.target_key}' has no classes. Choose another label_key.")
    return tuple(reader.class_to_idx)
