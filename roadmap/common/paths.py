"""Where the files that ship with the program lie (in a checkout, or installed), and what it keeps for itself."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the folder that Python finds the packages in
_SHIPPED = Path(__file__).parents[1] / "shipped"  # the wheel puts them there
_HOME = _SHIPPED if _SHIPPED.is_dir() else ROOT
CACHE = Path(os.path.expanduser("~")) / ".cache" / "roadmap"  # Path.home() raises where nobody has a home
STEPS_FILE, LADDERS, RECIPES = _HOME / "steps.yaml", _HOME / "ladders", _HOME / "recipes"
