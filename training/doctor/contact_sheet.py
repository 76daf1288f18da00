"""The picture of a dataset: a strip of each clip, framed in the colour of the worst that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...wan.trigger_check import Verdict
from .clip_look import ClipLook
from .examination import DoctorReport
from .findings import in_one_line
from .frames import STRIP_SIDE
from .guidance import WHOLE_DATASET, counted

MOST_TILES = 60
GROUND, PAPER, TEXT, FAINT = "#1b1c1e", "#2a2c2f", "#f0f0f0", "#a0a4a8"
COLOURS: dict[Verdict, str] = {"good": "#4a4d52", "warning": "#e8a33d", "bad": "#e05263"}
ORDER: tuple[Verdict, ...] = ("bad", "warning", "good")
GAP, EDGE = 10, 4
WIDTH = 3 * STRIP_SIDE + 2 * EDGE
NO_PICTURE_PX = 64


class Layout(NamedTuple):
    """How a number of tiles is laid out; text in pixels."""

    most: int
    columns: int
    text: int
    fault_lines: int

    @property
    def line(self) -> int:
        return round(self.text * 1.25)

    @property
    def title(self) -> int:
        return round(self.text * 1.2)


# A node shows the sheet about 340 pixels wide: there a third of the size of few tiles is left, which can be read.
LAYOUTS = (
    Layout(2, 2, 28, 4),
    Layout(12, 3, 28, 4),
    Layout(MOST_TILES, 4, 20, 3),
)


@dataclass(frozen=True)
class Tile:
    """A clip, or a file that is not used, with the kinds of its faults from the worst on."""

    name: str
    look: ClipLook | None
    faults: tuple[tuple[Verdict, str], ...]

    @property
    def verdict(self) -> Verdict:
        return self.faults[0][0] if self.faults else "good"


def contact_sheet(report: DoctorReport, *, most: int = MOST_TILES) -> np.ndarray:
    """(height, width, 3) uint8: at most `most` tiles, those with faults first, then the rest in the dataset's order."""
    tiles = sorted(_tiles(report), key=lambda tile: ORDER.index(tile.verdict))
    shown, left = tiles[:most], tiles[most:]
    layout = next((each for each in LAYOUTS if len(shown) <= each.most), LAYOUTS[-1])
    strips = [_strip(tile.look) for tile in shown]
    faults = [_fault_lines(tile, layout) for tile in shown]
    head = _head(report, layout)
    rows = range(0, len(shown), layout.columns)
    heights = [
        max(
            _height(strips[n], faults[n], layout) for n in range(len(shown))[r : r + layout.columns]
        )
        for r in rows
    ]
    bottom = layout.line + 2 * GAP if left else GAP
    y = GAP + head.height
    size = head.width, y + sum(heights) + GAP * len(heights) + bottom
    sheet = Image.new("RGB", size, GROUND)
    sheet.paste(head, (0, 0))
    for first, height in zip(rows, heights, strict=True):
        for column in range(min(layout.columns, len(shown) - first)):
            n = first + column
            drawn = _draw_tile(shown[n], strips[n], faults[n], layout, (WIDTH, height))
            sheet.paste(drawn, (GAP + column * (WIDTH + GAP), y))
        y += height + GAP
    if left:
        at = GAP, sheet.height - layout.line - GAP
        _write(ImageDraw.Draw(sheet), at, _left_out(left), sheet.width - 2 * GAP, layout.text)
    return np.array(sheet)


def _height(strip: Image.Image, faults: Sequence[str], layout: Layout) -> int:
    return strip.height + 2 * EDGE + (2 + len(faults)) * layout.line + 4


def _head(report: DoctorReport, layout: Layout) -> Image.Image:
    """What is said of the dataset as a whole, as wide as the sheet."""
    width = layout.columns * (WIDTH + GAP) + GAP
    room = width - 2 * GAP
    title = _wrapped(_title(report).split(" "), " ", room, layout.title, 3)
    of_all = [f.kind for f in report.findings if f.faults[0].name == WHOLE_DATASET]
    below = (
        _wrapped([f"the dataset: {of_all[0]}", *of_all[1:]], ", ", room, layout.text, 2)
        if of_all
        else []
    )
    step = round(layout.title * 1.25)
    head = Image.new("RGB", (width, GAP + len(title) * step + len(below) * layout.line), GROUND)
    draw = ImageDraw.Draw(head)
    for number, line in enumerate(title):
        _write(draw, (GAP, GAP + number * step), line, room, layout.title)
    for number, line in enumerate(below):
        at = GAP, GAP + len(title) * step + number * layout.line
        _write(draw, at, line, room, layout.text, COLOURS["warning"])
    return head


def _tiles(report: DoctorReport) -> list[Tile]:
    of_clip: dict[int, list[tuple[Verdict, str]]] = {}
    of_file: dict[str, list[tuple[Verdict, str]]] = {}
    for verdict in ORDER:
        for finding in (f for f in report.findings if f.verdict == verdict):
            for fault in finding.faults:
                mark = (verdict, finding.kind)
                if fault.clip is None:
                    of_file.setdefault(fault.name, []).append(mark)
                else:
                    of_clip.setdefault(fault.clip, []).append(mark)
    clips = zip(report.names, report.looks, strict=True)
    return [
        *(Tile(n, look, _marks(of_clip, at)) for at, (n, look) in enumerate(clips)),
        *(Tile(u.name, u.look, _marks(of_file, u.name)) for u in report.unused),
    ]


def _marks(found: Mapping, key: object) -> tuple[tuple[Verdict, str], ...]:
    return tuple(dict.fromkeys(found.get(key, ())))


def _strip(look: ClipLook | None) -> Image.Image:
    if look is not None:
        return Image.open(BytesIO(look.strip)).convert("RGB")
    crossed = Image.new("RGB", (3 * STRIP_SIDE, NO_PICTURE_PX), PAPER)
    draw, corner = ImageDraw.Draw(crossed), (crossed.width - 1, crossed.height - 1)
    draw.line((0, 0, *corner), COLOURS["bad"], 2)
    draw.line((0, corner[1], corner[0], 0), COLOURS["bad"], 2)
    return crossed


def _draw_tile(
    tile: Tile, strip: Image.Image, faults: Sequence[str], layout: Layout, size: tuple[int, int]
) -> Image.Image:
    colour, (width, height) = COLOURS[tile.verdict], size
    drawn = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((0, 0, width - 1, height - 1), PAPER, colour, 3)
    drawn.paste(strip, ((width - strip.width) // 2, EDGE))
    y = EDGE + strip.height + 2
    said = [(tile.name, TEXT), (_facts(tile.look), FAINT), *((line, colour) for line in faults)]
    for number, (line, ink) in enumerate(said):
        at = 2 * EDGE, y + number * layout.line
        _write(draw, at, line, _room(), layout.text, ink)
    return drawn


def _room() -> int:
    return WIDTH - 4 * EDGE


def _fault_lines(tile: Tile, layout: Layout) -> list[str]:
    kinds = [kind for _, kind in tile.faults]
    return _wrapped(kinds, ", ", _room(), layout.text, layout.fault_lines)


def _wrapped(parts: Sequence[str], between: str, width: int, size: int, most: int) -> list[str]:
    """Whole parts in at most so many lines; those for which there is no room are counted at the end: `, +2`."""
    font = ImageFont.load_default(size)
    for kept in range(len(parts), 0, -1):
        left = len(parts) - kept
        said = [*parts[:kept], *([f"+{left}"] if left else [])]
        lines = [said[0]]
        for part in said[1:]:
            longer = f"{lines[-1]}{between}{part}"
            if font.getlength(longer + between.rstrip()) <= width:
                lines[-1] = longer
            else:
                lines[-1] += between.rstrip()
                lines.append(part)
        if len(lines) <= most:
            return lines
    return [f"{len(parts)} findings"] if parts else []


def _facts(look: ClipLook | None) -> str:
    if look is None:
        return "no picture"
    size = f"{look.width}x{look.height}"
    return (
        f"picture, {size}"
        if look.is_picture
        else f"{look.seconds:.1f} s, {look.told_fps:.4g} fps, {size}"
    )


def _title(report: DoctorReport) -> str:
    count = counted(look is not None and look.is_picture for look in report.looks)
    files = len(report.unused)
    unused = f", {files} file{'s' * (files != 1)} not used" if files else ""
    return f"{report.verdict.upper()}, {report.score} of 100: {count}{unused}"


def _left_out(left: Sequence[Tile]) -> str:
    faulty = sum(tile.verdict != "good" for tile in left)
    return f"and {len(left)} more, {faulty or 'none'} of them with faults"


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    size: int,
    colour: str = TEXT,
) -> None:
    """In one line; what does not fit loses its middle, since names differ at both ends."""
    # The font that Pillow carries: the same picture on every machine.
    font = ImageFont.load_default(size)
    line = text = in_one_line(text)
    kept = len(text)
    while draw.textlength(line, font) > width and kept > 4:
        kept -= 1
        line = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    draw.text(at, line, colour, font)
