"""The drawings of the paper page: each block is a link to the line of its class.

Usage: python docs/figures.py

writes docs/images/paper/*.svg. They are our own, made from the paper's text: Fig. 1 and 2, and what Eq. 2 to 5 say.
"""

import sys
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "images" / "paper"

PLA = "plasm/layers/pairwise_attention.py#PairwiseLayerAttention"
SPATIAL_MASKING = "plasm/layers/spatial_masking.py#SpatialMasking"
CONVNEXT = "plasm/layers/convnext.py#ConvNeXtBlock"
ENCODER = "plasm/layers/sparse.py#SparseEncoder"
DECODER = "plasm/models/plasm.py#Decoder"
TRANSLATOR = "plasm/models/plasm.py#Translator"
PIXEL_MASK = "plasm/layers/pixel_mask.py#random_pixel_mask"

# Fills, pale enough for text in the page's colour in light and in dark.
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#3f6fd8", "#e07b39", "#3aa076", "#8e5bc7", "#888888"
STYLE = "<style>svg { color: #222 } @media (prefers-color-scheme: dark) { svg { color: #ddd } }</style>"


class Box(NamedTuple):
    """A block: its middle, its sides, and where arrows leave it."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> tuple[float, float]:
        """Middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        """Middle of the right side."""
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        """Middle of the top side."""
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        """Middle of the bottom side."""
        return self.x, self.y + self.height / 2


Point = tuple[float, float]


@dataclass
class Drawing:
    """An SVG that is drawn block by block and arrow by arrow."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, text: str, colour: str = GRAY, code: str = "", width: float = 104, height: float = 40
    ) -> Box:
        """A block around a middle; lines of its text are separated by newlines; ``code`` is FILE#NAME."""
        box = Box(x, y, width, height)
        shape = (
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{colour}" fill-opacity=".18" stroke="{colour}" stroke-width="1.5"/>'
        )
        lines = text.split("\n")
        texts = "".join(self._text(x, y + 16 * (n - (len(lines) - 1) / 2), line) for n, line in enumerate(lines))
        self.parts.append(f'<a href="code:{code}">{shape}{texts}</a>' if code else shape + texts)
        return box

    def circle(self, x: float, y: float, sign: str) -> Box:
        """An operation of two inputs."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="13" fill="none" stroke="currentColor"/>')
        self.parts.append(self._text(x, y, sign, 16))
        return Box(x, y, 26, 26)

    def arrow(self, *points: Point, label: str = "", at: Point | None = None, dashed: bool = False) -> None:
        """An arrow through points, with a label beside its middle."""
        path = " ".join(f"{'L' if index else 'M'}{x:g} {y:g}" for index, (x, y) in enumerate(points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.3" marker-end="url(#tip)"{dash}/>'
        )
        if label:
            (x0, y0), (x1, y1) = points[0], points[1]
            x, y = at or ((x0 + x1) / 2, (y0 + y1) / 2 - 9)
            self.label(x, y, label)

    def label(self, x: float, y: float, text: str, size: int = 12, anchor: str = "middle") -> None:
        """Text by itself."""
        self.parts.append(self._text(x, y, text, size, anchor, quiet=True))

    def frame(self, x: float, y: float, side: float, visible: set[int] | None = None, cells: int = 6) -> Box:
        """A small image of cells, of which only some are visible."""
        step, corner = side / cells, (x - side / 2, y - side / 2)
        for index in range(cells * cells):
            shown = visible is None or index in visible
            px, py = corner[0] + index % cells * step, corner[1] + index // cells * step
            opacity = (0.15 + 0.6 * ((index * 7 + index // cells * 3) % 5) / 4) if shown else 0
            self.parts.append(
                f'<rect x="{px:g}" y="{py:g}" width="{step:g}" height="{step:g}" fill="{BLUE}" '
                f'fill-opacity="{opacity:.2f}" stroke="currentColor" stroke-opacity=".25"/>'
            )
        return Box(x, y, side, side)

    def svg(self) -> str:
        """The file."""
        tip = '<path d="M0 0L8 4L0 8z" fill="currentColor"/>'
        marker = f'<marker id="tip" markerWidth="8" markerHeight="8" refX="8" refY="4" orient="auto">{tip}</marker>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="sans-serif" color="currentColor">{STYLE}<defs>{marker}</defs>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )

    def _text(self, x: float, y: float, text: str, size: int = 12, anchor: str = "middle", quiet: bool = False) -> str:
        opacity = ' fill-opacity=".75"' if quiet else ""
        return (
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" dominant-baseline="central" '
            f'fill="currentColor"{opacity}>{escape(text)}</text>'
        )


def framework() -> Drawing:
    """Fig. 1: the model of phase 2."""
    d = Drawing(800, 400)
    clip = d.box(70, 60, "T frames", width=90)
    encoder = d.box(210, 60, "Encoder", GREEN, ENCODER)
    d.arrow(clip.right, encoder.left)
    in_proj = d.box(360, 60, "1x1 conv", GRAY, TRANSLATOR, width=84)
    d.arrow(encoder.right, in_proj.left, label="S")
    down = [d.box(360, 135 + 75 * i, f"ConvNeXt {i + 1 if i < 2 else 'N'}", BLUE, CONVNEXT) for i in range(3)]
    up = [
        d.box(600, 135 + 75 * i, f"PLA {'N' if i == 0 else 3 - i if i == 2 else 'N-1'}", ORANGE, PLA) for i in range(3)
    ]
    d.arrow(in_proj.bottom, down[0].top)
    d.arrow(down[0].bottom, down[1].top)
    d.arrow(down[1].bottom, down[2].top, dashed=True)
    d.arrow(up[2].top, up[1].bottom, dashed=True)
    d.arrow(up[1].top, up[0].bottom)
    for index, name in enumerate(("Z1", "Z2", "ZN")):
        d.arrow(down[index].right, up[index].left, label=f"{name}: low")
    d.arrow(
        down[2].bottom, (360, 345), (600, 345), up[2].bottom, label="ZN: high, for the first PLA block", at=(480, 334)
    )
    d.label(612, 172, "high", anchor="start")
    d.label(612, 247, "high", anchor="start")
    out_proj = d.box(600, 60, "1x1 conv", GRAY, TRANSLATOR, width=84)
    d.arrow(up[0].top, out_proj.bottom)
    decoder = d.box(730, 60, "Decoder", GREEN, DECODER, width=96)
    d.arrow(out_proj.right, decoder.left)
    future = d.box(730, 135, "T' frames", width=90)
    d.arrow(decoder.bottom, future.top)
    d.label(210, 98, "each frame by itself,")
    d.label(210, 114, "frozen in phase 2")
    d.label(480, 378, "Translator: all frames together, as channels", 13)
    return d


def convnext_block() -> Drawing:
    """Eq. 2."""
    d = Drawing(800, 120)
    names = ("7x7 depthwise", "GroupNorm", "1x1: C to 4C", "LeakyReLU", "1x1: 4C to C")
    boxes = [d.box(120 + 125 * i, 70, name, BLUE, CONVNEXT, width=104) for i, name in enumerate(names)]
    d.arrow((12, 70), boxes[0].left, label="Z(i-1)", at=(36, 59))
    for left, right in pairwise(boxes):
        d.arrow(left.right, right.left)
    plus = d.circle(715, 70, "+")
    d.arrow(boxes[-1].right, plus.left)
    d.arrow((56, 70), (56, 20), (715, 20), plus.top)
    d.arrow(plus.right, (790, 70), label="Z(i)", at=(762, 59))
    return d


def pairwise_attention() -> Drawing:
    """Eq. 3 and what surrounds it: one PLA block."""
    d = Drawing(800, 290)
    low = d.box(70, 50, "low: Z(i)\nof ConvNeXt", BLUE, CONVNEXT, width=110, height=46)
    high = d.box(70, 190, "high: Z(N-i)\nof the last PLA", ORANGE, PLA, width=118, height=46)
    pool_q = d.box(220, 50, "mean over\npositions", GRAY, PLA, width=90, height=46)
    pool_k = d.box(220, 135, "mean over\npositions", GRAY, PLA, width=90, height=46)
    query = d.box(345, 50, "1x1: Query", PURPLE, PLA, width=96)
    key = d.box(345, 135, "1x1: Key", PURPLE, PLA, width=96)
    d.arrow(low.right, pool_q.left)
    d.arrow(pool_q.right, query.left)
    d.arrow(high.right, (150, 190), (150, 135), pool_k.left)
    d.arrow(pool_k.right, key.left)
    score = d.box(510, 92, "score A:\none a head", PURPLE, PLA, width=104, height=48)
    d.arrow(query.right, (425, 50), (425, 82), (458, 82))
    d.arrow(key.right, (425, 135), (425, 102), (458, 102))
    block = d.box(250, 220, "ConvNeXt block", BLUE, CONVNEXT, width=116)
    depthwise = d.box(420, 220, "3x3 depthwise", BLUE, PLA, width=112)
    d.arrow(high.right, (150, 190), (150, 220), block.left)
    d.arrow(block.right, depthwise.left)
    times = d.circle(640, 160, "\N{MULTIPLICATION SIGN}")
    d.arrow(score.right, (640, 92), times.top)
    d.arrow(depthwise.right, (640, 220), times.bottom, label="Value, Eq. 3", at=(550, 209))
    d.arrow(times.right, (780, 160), label="Z(N-i+1)", at=(720, 149))
    d.label(335, 268, "Eq. 3: Value = DWConv(ConvNeXt(high))", 13)
    return d


def spatial_masking() -> Drawing:
    """Fig. 2: the model of phase 1."""
    d = Drawing(800, 320)
    whole = d.frame(50, 60, 66)
    hidden = d.frame(190, 60, 66, visible={3, 16, 26, 31})
    d.arrow(whole.right, hidden.left, label="hide r0", at=(120, 48))
    d.label(190, 106, "pixel mask")
    encoder = d.box(320, 60, "sparse\nEncoder", GREEN, ENCODER, width=96, height=46)
    d.arrow(hidden.right, encoder.left)
    d.label(50, 106, "frame X(t)")
    pool = d.box(450, 60, "mean over\npositions", GRAY, SPATIAL_MASKING, width=90, height=46)
    d.arrow(encoder.right, pool.left)
    query = d.box(570, 38, "1x1: Query", PURPLE, SPATIAL_MASKING, width=92, height=34)
    key = d.box(570, 84, "1x1: Key", PURPLE, SPATIAL_MASKING, width=92, height=34)
    d.arrow(pool.right, query.left)
    d.arrow(pool.right, key.left)
    scores = d.box(710, 60, "A = q k\N{MODIFIER LETTER CAPITAL T} / \N{SQUARE ROOT}C\nC x C scores",
                   PURPLE, SPATIAL_MASKING, width=116, height=46)  # fmt: skip
    d.arrow(query.right, (634, 38), (634, 52), (652, 52))
    d.arrow(key.right, (634, 84), (634, 68), (652, 68))
    masked = d.box(710, 150, "highest r of them\nbecome -\N{INFINITY}", PURPLE, SPATIAL_MASKING, width=126, height=46)
    d.arrow(scores.bottom, masked.top)
    softmax = d.box(570, 150, "softmax of\neach row", PURPLE, SPATIAL_MASKING, width=92, height=46)
    d.arrow(masked.left, softmax.right)
    value = d.box(320, 215, "3x3 depthwise", BLUE, SPATIAL_MASKING, width=112)
    d.arrow(encoder.bottom, value.top)
    times = d.circle(570, 215, "\N{MIDDLE DOT}")
    d.arrow(softmax.bottom, times.top)
    d.arrow(value.right, times.left, label="Value")
    decoder = d.box(570, 285, "Decoder", GREEN, DECODER, width=96)
    d.arrow(times.bottom, decoder.top)
    rebuilt = d.frame(190, 270, 66)
    d.arrow(decoder.left, (223, 285), label="rebuilt frame", at=(390, 275))
    d.arrow((50, 118), (50, 270), rebuilt.left, dashed=True)
    d.label(58, 200, "Eq. 4: squared error", anchor="start")
    return d


def two_phases() -> Drawing:
    """Eq. 4 and Eq. 5: which parts are there, and which of them learn."""
    d = Drawing(800, 190)
    d.label(12, 50, "Phase 1, Eq. 4", 13, "start")
    d.label(12, 140, "Phase 2, Eq. 5", 13, "start")
    top = [
        d.box(220, 50, "Encoder\nlearns", GREEN, ENCODER, height=46),
        d.box(380, 50, "Spatial Masking\nlearns", PURPLE, SPATIAL_MASKING, width=124, height=46),
        d.box(540, 50, "Decoder\nlearns", GREEN, DECODER, height=46),
    ]
    low = [
        d.box(220, 140, "Encoder\nfrozen", GRAY, ENCODER, height=46),
        d.box(380, 140, "Translator\nlearns, starts fresh", ORANGE, TRANSLATOR, width=132, height=46),
        d.box(540, 140, "Decoder\nlearns on", GREEN, DECODER, height=46),
    ]
    for row, text in ((top, "the same T frames, whole"), (low, "the next T' frames")):
        for left, right in pairwise(row):
            d.arrow(left.right, right.left)
        d.arrow(row[-1].right, (640, row[-1].y))
        d.label(720, row[-1].y, text)
    for box in (top[0], top[2]):
        d.arrow(box.bottom, (box.x, 117), dashed=True)
    return d


DRAWINGS = {
    "framework": framework,
    "convnext": convnext_block,
    "pairwise_attention": pairwise_attention,
    "spatial_masking": spatial_masking,
    "two_phases": two_phases,
}


def stale() -> list[str]:
    """Files that are not what this program draws."""
    files = {FOLDER / f"{name}.svg": draw().svg() for name, draw in DRAWINGS.items()}
    return [file.name for file, text in files.items() if not file.exists() or file.read_text(encoding="utf-8") != text]


def main() -> int:
    """Draw them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
