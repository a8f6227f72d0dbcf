"""The former name of `roadmap.networks.config` and `roadmap.networks.families`, for code written with it."""

from roadmap.networks.config import BlockConfig, NetConfig
from roadmap.networks.families import BASES, convnext

__all__ = ["BASES", "BlockConfig", "NetConfig", "convnext"]
