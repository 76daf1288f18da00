"""The picture of a dataset: a strip of each clip, framed in the colour of the worst that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...wan.trigger_check import Verdict
from .examination import DoctorReport
from .frames import STRIP_SIDE
from .guidance import WHOLE_DATASET
from .look import ClipLook

MOST_TILES = 60
COLUMNS = 4
GROUND, PAPER, TEXT, FAINT = "#1b1c1e", "#2a2c2f", "#f0f0f0", "#a0a4a8"
COLOURS: dict[Verdict, str] = {"good": "#4a4d52", "warning": "#e8a33d", "bad": "#e05263"}
ORDER: tuple[Verdict, ...] = ("bad", "warning", "good")
GAP, EDGE, LINE = 10, 4, 17
WIDTH = 3 * STRIP_SIDE + 2 * EDGE
TITLE_SIZE, TEXT_SIZE = 18, 13
NO_PICTURE_PX = 64


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
    columns = max(1, min(COLUMNS, len(shown)))
    strips = [_strip(tile.look) for tile in shown]
    strip_height = max(strip.height for strip in strips) if strips else NO_PICTURE_PX
    height = strip_height + 2 * EDGE + 3 * LINE + 4
    rows = -(-len(shown) // columns)
    top, bottom = 2 * GAP + TITLE_SIZE + LINE + 6, LINE + 2 * GAP if left else GAP
    size = (columns * (WIDTH + GAP) + GAP, top + rows * (height + GAP) + bottom)
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, GAP), _title(report), size[0] - 2 * GAP, TITLE_SIZE)
    of_all = ", ".join(f.kind for f in report.findings if f.faults[0].name == WHOLE_DATASET)
    if of_all:
        at = GAP, GAP + TITLE_SIZE + 6
        _write(draw, at, f"the dataset: {of_all}", size[0] - 2 * GAP, TEXT_SIZE, COLOURS["warning"])
    for number, (tile, strip) in enumerate(zip(shown, strips, strict=True)):
        row, column = divmod(number, columns)
        at = GAP + column * (WIDTH + GAP), top + row * (height + GAP)
        _draw_tile(sheet, at, tile, strip, (WIDTH, height))
    if left:
        _write(draw, (GAP, size[1] - LINE - GAP), _left_out(left), size[0] - 2 * GAP, TEXT_SIZE)
    return np.array(sheet)


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
    sheet: Image.Image, at: tuple[int, int], tile: Tile, strip: Image.Image, size: tuple[int, int]
) -> None:
    draw, colour = ImageDraw.Draw(sheet), COLOURS[tile.verdict]
    (x, y), (width, height) = at, size
    draw.rectangle((x, y, x + width - 1, y + height - 1), PAPER, colour, 3)
    words_y = y + height - 3 * LINE - EDGE
    room = words_y - y - EDGE
    sheet.paste(strip, (x + (width - strip.width) // 2, y + EDGE + (room - strip.height) // 2))
    inside = width - 4 * EDGE
    _write(draw, (x + 2 * EDGE, words_y), tile.name, inside, TEXT_SIZE)
    _write(draw, (x + 2 * EDGE, words_y + LINE), _facts(tile.look), inside, TEXT_SIZE, FAINT)
    if tile.faults:
        kinds = ", ".join(kind for _, kind in tile.faults)
        _write(draw, (x + 2 * EDGE, words_y + 2 * LINE), kinds, inside, TEXT_SIZE, colour)


def _facts(look: ClipLook | None) -> str:
    if look is None:
        return "no picture"
    size = f"{look.width}x{look.height}"
    return (
        f"picture, {size}"
        if look.frames == 1
        else f"{look.seconds:.1f} s, {look.fps:.4g} fps, {size}"
    )


def _title(report: DoctorReport) -> str:
    count = len(report.names)
    files = len(report.unused)
    unused = f", {files} file{'s' * (files != 1)} not used" if files else ""
    return (
        f"{report.verdict.upper()}, {report.score} of 100: {count} clip{'s' * (count != 1)}{unused}"
    )


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
    kept = len(text)
    line = text
    while draw.textlength(line, font) > width and kept > 4:
        kept -= 1
        line = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    draw.text(at, line, colour, font)
