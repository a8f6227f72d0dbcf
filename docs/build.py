"""Build the documentation into build/site, offline and strictly: a broken link or reference fails it.

Run it as `make docs`. The pages are laid out as in the repository, beside the files that they link to, so that the same
relative link works here, in a checkout and on the site.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "build" / "docs"
FIRST = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"\]\(([^)#\s]+)")


def links_of(page: Path) -> set[Path]:
    """Return the files of the repository that a page links to or shows."""
    targets = LINK.findall(page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target and "mailto:" not in target}


def files_of_the_site() -> set[Path]:
    """Return every page, and every file that one of them links to, itself or through another page."""
    waiting = {ROOT / name for name in FIRST} | set((ROOT / "docs").glob("*.md"))
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if not path.is_file():
            sys.exit(f"{path.relative_to(ROOT)}: a page links to it, but it is not a file. Link to a file.")
        found.add(path)
        if path.suffix == ".md":
            waiting |= links_of(path) - found
    return found


def main() -> int:
    """Lay out the pages and build the site; return the exit code of the builder."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in files_of_the_site():
        target = STAGE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return subprocess.run(["zensical", "build", "--strict", "--clean"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
