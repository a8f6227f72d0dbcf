"""The picture of a network and of its block: which field of `NetConfig` and `BlockConfig` decides which part.

It has a ground of its own, so it can be read on a light and on a dark page, and is as wide as a phone.
"""

from dataclasses import dataclass

WIDTH, MARGIN, GAP, LINE = 360, 14, 16, 17
STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .field { font: 12px ui-monospace, monospace }
  .head { font-weight: 600; font-size: 15px }
  .ground { fill: #ffffff; stroke: #d0d7de }
  .part { fill: #eef2f6; stroke: #57606a }
  .own { fill: #fff1cc; stroke: #9a6700 }
  .frame { fill: none; stroke: #57606a; stroke-dasharray: 4 3 }
  .arrow { fill: none; stroke: #57606a; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ground { fill: #161b22; stroke: #30363d }
    .part { fill: #262c36; stroke: #8b949e }
    .own { fill: #3d2e00; stroke: #d29922 }
    .frame, .arrow { stroke: #8b949e }
  }"""


@dataclass(frozen=True)
class Part:
    """A box: what it is, and the lines below: the fields that decide it, and the slots of own layers."""

    title: str
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return 12 + LINE * (1 + len(self.lines))

    @property
    def kind(self) -> str:
        """Its style: whether an own layer can stand here."""
        return "own" if any(line.startswith("own") for line in self.lines) else "part"


OWN, BEHIND = "own: ", "own, behind it: "
BEFORE = (Part("stem", ("stem, stem_width, stem_stride", f"{OWN}stem")),)
STAGE = (
    Part("downsampling", ("downsample, strides, boundary_norms", f"{OWN}downsample")),
    Part("depths[i] blocks of widths[i]", ("block, or blocks[i]",)),
)
AFTER = (
    Part("1x1 convolution", ("head_width",)),
    Part("pool", (f"{OWN}pool",)),
    Part("norm", ("final_norm",)),
    Part("head", (f"{OWN}head",)),
)
BRANCH = (
    Part("1x1 convolution", ("hidden_ratio, hidden_of", f"{BEHIND}pointwise1")),
    Part("spatial convolution", ("kernel_size, groups, depthwise", f"{OWN}spatial_conv", f"{BEHIND}spatial")),
    Part("1x1 convolution", ("residual_ratio", f"{BEHIND}pointwise2")),
    Part("layer scale", ("layer_scale",)),
)
NOTES = (
    "Norm and activation follow a convolution that",
    "norm_after and act_after name. spatial_first puts",
    "the spatial one first; convs can leave it alone.",
)


def draw_network() -> str:
    """Return the picture as SVG."""
    shapes: list[str] = []
    y = _heading(shapes, "A network (NetConfig)", MARGIN + 16)
    y = _column(shapes, BEFORE, y, 40, 280)
    top = y
    shapes.append(_text(40, y + 18, "each stage i", ""))
    y = _column(shapes, STAGE, y + 28, 40, 280, last=True) + 12
    shapes.append(f'<rect class="frame" x="30" y="{top}" width="300" height="{y - top}" rx="6"/>')
    shapes.append(f'<path class="arrow" d="M 180 {y} V {y + GAP}"/>')
    y = _column(shapes, AFTER, y + GAP, 40, 280, last=True)
    y = _heading(shapes, "A block (BlockConfig)", y + 34)
    top, left, right = y, 108, 346
    shapes.append(f'<path class="arrow" d="M {(left + right) // 2} {y - 6} V {y + 14}"/>')
    y = _column(shapes, BRANCH, y + 14, left, right - left, last=True)
    bottom, middle = y + 30, (left + right) // 2
    # The shortcut beside the branch, from its start to the addition.
    shortcut = top + (bottom - top) // 2 - 34
    shapes.append(f'<path class="arrow" d="M {middle} {top} H 58 V {shortcut}"/>')
    shapes.append(f'<path class="arrow" d="M 58 {shortcut + 68} V {bottom} H {middle - 11}"/>')
    shapes.append(f'<path class="arrow" d="M {middle} {y} V {bottom - 11}"/>')
    shapes.append(f'<rect class="own" x="14" y="{shortcut}" width="88" height="68" rx="5"/>')
    shapes += [
        _text(58, shortcut + 20, "shortcut", "", "middle"),
        _text(58, shortcut + 38, "shortcut", "field", "middle"),
        _text(58, shortcut + 55, "projection", "field", "middle"),
    ]
    shapes.append(f'<circle class="part" cx="{middle}" cy="{bottom}" r="11"/>')
    shapes.append(_text(middle, bottom + 5, "+", "head", "middle"))
    shapes.append(_text(middle + 20, bottom + 5, "act_after", "field"))
    y = bottom + 34
    for note in NOTES:
        shapes.append(_text(MARGIN + 6, y, note, ""))
        y += LINE
    y += 8
    shapes.append(f'<rect class="own" x="{MARGIN + 6}" y="{y - 12}" width="16" height="16" rx="3"/>')
    shapes.append(_text(MARGIN + 30, y + 1, "an own layer can stand here, in its slot", ""))
    height = y + 20
    body = "\n".join(f"  {shape}" for shape in shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The parts of a network and of a block, and the fields that decide them">\n'
        f"  <style>\n{STYLE}\n  </style>\n"
        f'  <rect class="ground" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8"/>\n{body}\n</svg>\n'
    )


def _heading(shapes: list[str], text: str, y: int) -> int:
    shapes.append(_text(MARGIN + 6, y, text, "head"))
    return y + 18


def _column(shapes: list[str], parts: tuple[Part, ...], y: int, left: int, width: int, *, last: bool = False) -> int:
    """Draw boxes below each other, with arrows between them and after the last one; return where the next begins."""
    for number, part in enumerate(parts):
        shapes.append(f'<rect class="{part.kind}" x="{left}" y="{y}" width="{width}" height="{part.height}" rx="5"/>')
        line = y + 18
        shapes.append(_text(left + 10, line, part.title, ""))
        for text in part.lines:
            line += LINE
            shapes.append(_text(left + 10, line, text, "field"))
        y += part.height
        if not last or number < len(parts) - 1:
            shapes.append(f'<path class="arrow" d="M {left + width // 2} {y} V {y + GAP}"/>')
            y += GAP
    return y


def _text(x: int, y: int, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{text}</text>'
