"""The former name of `roadmap.networks.convert`, for code written with it."""

from roadmap.networks.convert import from_timm, to_timm

__all__ = ["from_timm", "to_timm"]
