"""Networks that timm has, by their names there: what a ladder's rungs are held against, and Table 1's models.

Nothing here imports torch or timm: `roadmap.model` builds what is named here.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from roadmap.config import STRICT


@dataclass(frozen=True)
class TimmNet:
    """A network of timm's, where a ladder has a `NetConfig`.

    Attributes:
        timm: The name of its architecture, such as "swin_tiny_patch4_window7_224".
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    timm: str
