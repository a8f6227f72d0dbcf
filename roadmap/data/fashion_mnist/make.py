"""Make the embedded part of Fashion-MNIST from the official files: `python -m roadmap.data.fashion_mnist.make DIR`.

The training part is the first 1,500 images of each of the ten classes, in the official order; the test part is the
whole official test set of 10,000. Files keep their official names and idx layout, compressed with xz instead of gzip;
about.json says what `roadmap.data.datasets` would find in them.
"""

import hashlib
import json
import lzma
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from roadmap.data.datasets import describe_arrays, read_fashion
from roadmap.data.idx import find_idx, read_idx, write_idx

PER_CLASS = 1_500
HERE = Path(__file__).parent


def main(source: Path) -> None:
    """Write the four files and their checksums beside this script."""
    images, labels = (read_idx(find_idx(source, f"train-{part}")) for part in ("images-idx3", "labels-idx1"))
    kept = np.sort(np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in np.unique(labels)]))
    parts = {
        "train-images-idx3": images[kept],
        "train-labels-idx1": labels[kept],
        "t10k-images-idx3": read_idx(find_idx(source, "t10k-images-idx3")),
        "t10k-labels-idx1": read_idx(find_idx(source, "t10k-labels-idx1")),
    }
    sums = []
    for name, array in parts.items():
        path = HERE / f"{name}-ubyte.xz"
        path.write_bytes(lzma.compress(write_idx(array), preset=9 | lzma.PRESET_EXTREME))
        sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    about = asdict(describe_arrays("", read_fashion(HERE)))
    kept_fields = ("fingerprint", "num_classes", "in_channels", "train_images")
    (HERE / "about.json").write_text(json.dumps({name: about[name] for name in kept_fields}) + "\n")
    sums.append(f"{hashlib.sha256((HERE / 'about.json').read_bytes()).hexdigest()}  about.json\n")
    (HERE / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
