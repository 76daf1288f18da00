"""Clips side by side in one picture: a row each, frames from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

CELL_PX, GAP_PX, LABEL_PX = 128, 4, 26


def contact_sheet(rows: Sequence[tuple[str, Path]], target: Path, *, frames: int = 8) -> Path:
    """`rows` are (label, clip); each shows `frames` frames, evenly spread over the clip."""
    width = GAP_PX + frames * (CELL_PX + GAP_PX)
    height = len(rows) * (LABEL_PX + CELL_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, height), "#16181d")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, (label, clip) in enumerate(rows):
        top = GAP_PX + number * (LABEL_PX + CELL_PX + GAP_PX)
        draw.text((GAP_PX + 2, top + 2), label, fill="#e8e6e3", font=font)
        for column, picture in enumerate(_spread(clip, frames)):
            place = (GAP_PX + column * (CELL_PX + GAP_PX), top + LABEL_PX)
            sheet.paste(picture.resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST), place)
    sheet.save(target)
    return target


def _spread(clip: Path, count: int) -> list[Image.Image]:
    with av.open(str(clip)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    last = len(pictures) - 1
    return [pictures[round(i * last / max(1, count - 1))] for i in range(count)]
