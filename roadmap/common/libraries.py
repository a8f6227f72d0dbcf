"""Code bases whose networks are the ladder's two ends; the command line names them without importing anything else."""

from typing import Literal, get_args

Library = Literal["timm", "torchvision", "official", "transformers"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
