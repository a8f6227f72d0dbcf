"""Write what the documentation repeats of the program and of the records: docs/commands.md, and tables in other pages.

Run it as `make reference` after a change of commands or records; a test fails where it was forgotten. A block between
`<!-- from FILE: TEXT -->` and `<!-- end -->` becomes the first paragraph or table of FILE that has TEXT in it.
"""

import os
import re
from pathlib import Path

os.environ["COLUMNS"] = "100"  # argparse breaks lines there

from roadmap.cli.parser import command_parsers

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- from (\S+): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """Return the page of all commands, from the parser."""
    parts = [
        "# Commands",
        "`run-ladder`, `python run_ladder.py` and `python -m roadmap` are the same program. Without a command, `run`\n"
        "is meant: `run-ladder --base resnet50` trains and reports. The options that name a study (base, recipe,\n"
        "seeds, ...) are the same for every command, so that a command line can be used again with another command.\n\n"
        "This page is made from the program's own help by `make reference`.",
    ]
    group = ""
    for name, heading, _, parser in command_parsers("run-ladder"):
        if heading != group:
            group = heading
            parts.append(f"## {heading[0].upper()}{heading[1:]}")
        parts.append(f"### {name}\n\n```text\n{parser.format_help().strip()}\n```")
    return "\n\n".join(parts) + "\n"


def with_blocks(text: str) -> str:
    """Return a page with its blocks as the records have them now."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{paragraph(ROOT / match[2], match[3])}\n\n{match[4]}", text)


def paragraph(path: Path, text: str) -> str:
    """Return the first paragraph or table of a file that has a text in it.

    Raises:
        ValueError: If there is none.
    """
    for part in path.read_text().split("\n\n"):
        if text in part:
            return part.strip("\n")
    raise ValueError(f"{path.relative_to(ROOT)}: no paragraph has {text!r} in it.")


def pages() -> dict[Path, str]:
    """Return every page that is generated, wholly or in part, as it should be."""
    partly = {path: path.read_text() for path in DOCS.glob("*.md")}
    filled = {path: with_blocks(text) for path, text in partly.items() if BLOCK.search(text)}
    return filled | {DOCS / "commands.md": commands()}


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content)
