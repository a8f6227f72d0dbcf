"""A figure's SVG as an element of a page, which it may share with others and whose colours it follows."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from markupsafe import Markup

from analysis.figures.style import BAND, GREY, GRID, INK, PAPER, SHADOW

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
LEFT_OUT = {f"{{{SVG}}}metadata", f"{{{SVG}}}script"}

# A figure's colours that follow the page's, light, dark or printed; any other stays as it is.
THEME = {
    INK: "ink",
    "#000000": "ink",
    GREY: "soft",
    GRID: "line",
    PAPER: "ground",
    SHADOW: "shadow",
    BAND: "stripe",
}
COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")


def inline_svg(path: Path, name: str) -> Markup:
    """Return an SVG file as an element of a page, with ids that begin with its name, so that two do not meet.

    Its style sheet is held to it alone; what it says of itself (metadata) and scripts are left out. Its inks and
    grounds become the page's, so that it turns dark with the page.
    """
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.parse(path).getroot()  # of our own making; comments are left out
    root.set("id", f"{name}-svg")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in LEFT_OUT:
                parent.remove(child)
        if parent.tag == f"{{{SVG}}}style" and parent.text:
            parent.text = re.sub(r"(^|[{}])([^{}]+)(?={)", rf"\1#{name}-svg \2", parent.text)
        for key, value in parent.attrib.items():
            if key == "id" and parent is not root:
                parent.set(key, f"{name}-{value}")
            elif key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
                parent.set(key, f"#{name}-{value[1:]}")
            elif key in ("style", "fill", "stroke"):
                parent.set(key, COLOR.sub(_themed, value.replace("url(#", f"url(#{name}-")))
            elif "url(#" in value:
                parent.set(key, value.replace("url(#", f"url(#{name}-"))
    root.attrib.pop("height", None)  # the page gives it its width, and the box its proportions
    root.attrib.pop("width", None)
    root.set("aria-hidden", "true")  # the element around it says what is to be seen
    return Markup(ET.tostring(root, encoding="unicode"))


def _themed(color: re.Match[str]) -> str:
    """Return a colour of a figure as the page's style names it, if it does."""
    name = THEME.get(color[0].upper())
    return f"var(--{name})" if name else color[0]
