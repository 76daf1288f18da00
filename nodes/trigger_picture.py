"""The picture of a trigger's pieces."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..wan.trigger_check import TriggerCheck
from ..wan.trigger_neighbours import SPACE
from ..wan.wording import counted

WIDTH, MARGIN, LINE, TEXT_PX, SMALL_PX = 900, 20, 44, 22, 16
PAD, GAP = 7, 3
INK, GREY, OTHER = "#222222", "#777777", "#eeeeee"
VERDICTS = {"good": "#2e7d32", "warning": "#b26a00", "bad": "#b3261e"}
LONGEST = 48
"""Letters of a piece or a trigger that are shown; embeddings aside, none is longer."""


class _Box(NamedTuple):
    text: str
    colour: str


def trigger_picture(check: TriggerCheck, better: Sequence[TriggerCheck] = ()) -> np.ndarray:
    """(height, 900, 3) uint8: the sentence as boxes, one a piece, the trigger's coloured and the others
    grey; below it a row for each better trigger, with its pieces counted. `_` stands for a space."""
    small = _font(SMALL_PX)
    page = _Page()
    page.text(_count(check), _font(TEXT_PX), VERDICTS[check.verdict])
    page.boxes(_boxes(check.line))
    if better:
        page.text("Better with this tokenizer", small, GREY, space=14)
    for each in better:
        page.boxes(_boxes((piece, True) for piece in each.pieces), label=_count(each))
    page.text(f"One box is one piece; {glyphs('_')} is a space before it.", small, GREY, space=10)
    return page.picture()


def _count(check: TriggerCheck) -> str:
    return f"{_shown(check.trigger)}: {counted(len(check.pieces), 'piece')}, {check.verdict}"


def _boxes(line: Iterable[tuple[str, bool]]) -> list[_Box]:
    boxes, own = [], 0
    for piece, of_trigger in line:
        boxes.append(_Box(_shown(piece.replace(SPACE, "_")), _hue(own) if of_trigger else OTHER))
        own += of_trigger
    return boxes


def _hue(number: int) -> str:
    # The golden angle: neighbours never look alike, however many there are.
    red, green, blue = colorsys.hls_to_rgb((0.58 + number * 0.381966) % 1, 0.8, 0.75)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


class _Page:
    """What is drawn, from the top downwards; painted when all of it is known."""

    def __init__(self) -> None:
        self._top = MARGIN
        self._texts: list[tuple[tuple[int, int], str, ImageFont.FreeTypeFont, str]] = []
        self._areas: list[tuple[tuple[int, int, int, int], str]] = []

    def text(self, text: str, font: ImageFont.FreeTypeFont, colour: str, *, space: int = 0) -> None:
        self._top += space
        self._texts.append(((MARGIN, self._top), text, font, colour))
        self._top += round(font.size * 1.6)

    def boxes(self, boxes: Sequence[_Box], *, label: str = "") -> None:
        """Boxes beside each other, on a new line where one does not fit; a label stands before them."""
        font, left = _font(TEXT_PX), MARGIN
        if label:
            self._texts.append(((MARGIN, self._top + 8), label, _font(SMALL_PX), INK))
            begin = left = max(340, MARGIN + 12 + _width(label, _font(SMALL_PX)))
        else:
            begin = MARGIN
        if begin > WIDTH * 0.6:  # a long name has a line for itself
            begin = left = MARGIN
            self._top += round(SMALL_PX * 1.8)
        for box in boxes:
            width = _width(box.text, font) + 2 * PAD
            if left + width > WIDTH - MARGIN and left > begin:
                left, self._top = begin, self._top + LINE
            self._areas.append(((left, self._top, left + width, self._top + LINE - 8), box.colour))
            self._texts.append(((left + PAD, self._top + 4), box.text, font, INK))
            left += width + GAP
        self._top += LINE

    def picture(self) -> np.ndarray:
        image = Image.new("RGB", (WIDTH, self._top + MARGIN), "white")
        draw = ImageDraw.Draw(image)
        for area, colour in self._areas:
            draw.rounded_rectangle(area, radius=5, fill=colour, outline="#cccccc")
        for at, text, font, colour in self._texts:
            draw.text(at, text, font=font, fill=colour)
        return np.array(image)


def _shown(text: str) -> str:
    text = glyphs(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def glyphs(text: str) -> str:
    """The text with what the font cannot draw as `\\u` and its number."""
    known = _font_letters()
    return "".join(
        letter
        if ord(letter) in known and unicodedata.category(letter)[0] != "C"
        else _escape(letter)
        for letter in text
    )


def _escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


def _width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return round(font.getlength(text))


@cache
def _font_path() -> Path:
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_path()), size_px)


@cache
def _font_letters() -> frozenset[int]:
    """The letters that the font has, as their numbers."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path())).get_charmap())
