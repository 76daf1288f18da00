"""Pictures that show what a LoRA did: clips side by side with what was measured, and trails of motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

CELL_PX, GAP_PX, TEXT_PX = 112, 4, 24
GROUND, INK, PALE = "#16181d", "#e8e6e3", "#9aa5b1"


def side_by_side(
    rows: Sequence[tuple[str, torch.Tensor, str]], target: Path, *, frames: int = 9
) -> Path:
    """`rows` are (label, clip (frames, height, width, 3) in [0, 1], what was measured beneath)."""
    height = CELL_PX + 2 * TEXT_PX + GAP_PX
    sheet = Image.new(
        "RGB", (GAP_PX + frames * (CELL_PX + GAP_PX), GAP_PX + len(rows) * height), GROUND
    )
    draw = ImageDraw.Draw(sheet)
    for number, (label, clip, measured) in enumerate(rows):
        top = GAP_PX + number * height
        draw.text((GAP_PX + 2, top), label, fill=INK, font=ImageFont.load_default(16))
        for column in range(frames):
            frame = clip[round(column * (len(clip) - 1) / (frames - 1))]
            place = (GAP_PX + column * (CELL_PX + GAP_PX), top + TEXT_PX)
            sheet.paste(_picture(frame), place)
        beneath = (GAP_PX + 2, top + TEXT_PX + CELL_PX + 2)
        draw.text(beneath, measured, fill=PALE, font=ImageFont.load_default(14))
    sheet.save(target)
    return target


def trails(
    cells: Mapping[tuple[str, str], tuple[torch.Tensor, str]], target: Path, *, title: str
) -> Path:
    """A grid by (row, column): all frames of a clip in one picture, and a line beneath."""
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    left, top, high = 96, 2 * TEXT_PX + GAP_PX, CELL_PX + TEXT_PX + GAP_PX
    size = (left + len(columns) * (CELL_PX + GAP_PX), top + len(rows) * high)
    sheet = Image.new("RGB", size, GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP_PX + 2, 2), title, fill=INK, font=font)
    for x, column in enumerate(columns):
        draw.text((left + x * (CELL_PX + GAP_PX) + 2, TEXT_PX), column, fill=INK, font=font)
    for y, row in enumerate(rows):
        draw.text((GAP_PX + 2, top + y * high + CELL_PX // 2), row, fill=INK, font=font)
        for x, column in enumerate(columns):
            clip, measured = cells[row, column]
            place = (left + x * (CELL_PX + GAP_PX), top + y * high)
            sheet.paste(_picture(trail(clip)), place)
            draw.text((place[0] + 2, place[1] + CELL_PX + 1), measured, fill=PALE, font=font)
    sheet.save(target)
    return target


def trail(clip: torch.Tensor) -> torch.Tensor:
    """(height, width, 3): at each pixel the frame that is farthest from the usual, so that a path shows."""
    usual = clip.median(dim=0).values
    away = (clip - usual).square().sum(-1)
    index = away.argmax(dim=0)[None, :, :, None].expand(1, -1, -1, 3)
    return clip.gather(0, index)[0]


def _picture(frame: torch.Tensor) -> Image.Image:
    pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST)
