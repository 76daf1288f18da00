"""Sizes of clips and latents: the first frame stands alone, then every 4 frames share a cell."""

from __future__ import annotations

from typing import NamedTuple

from .errors import UserError

# Wan 2.1's VAE: 8x8 pixels and 4 frames a cell; the transformer folds 2x2 cells into a token
# (Wan-Video/Wan2.2, wan/modules/vae2_1.py and model.py, patch_size (1, 2, 2)).
FRAMES_PER_CELL = 4
PIXELS_PER_CELL = 8
PIXELS_PER_TOKEN = 16


class ClipSize(NamedTuple):
    """A clip in pixels: `frames` is 4k+1, `width` and `height` are multiples of 16."""

    width: int
    height: int
    frames: int


class LatentSize(NamedTuple):
    """The same clip as the VAE's cells, in the order of a latent's last three axes."""

    frames: int
    height: int
    width: int


def latent_size(clip: ClipSize) -> LatentSize:
    """Latent grid of `clip`, in cells."""
    return LatentSize(
        (clip.frames - 1) // FRAMES_PER_CELL + 1,
        clip.height // PIXELS_PER_CELL,
        clip.width // PIXELS_PER_CELL,
    )


def checked_clip_size(width: int, height: int, frames: int) -> ClipSize:
    """The clip size, or a `UserError` that names the nearest sizes Wan takes."""
    if frames < 1 or (frames - 1) % FRAMES_PER_CELL:
        below = max(1, (frames - 1) // FRAMES_PER_CELL * FRAMES_PER_CELL + 1)
        raise UserError(
            f"frames is {frames}.",
            "Wan takes 4k+1 frames (1, 5, 9, ... 49, 81).",
            f"Use {below} or {below + FRAMES_PER_CELL}.",
        )
    for name, side in (("width", width), ("height", height)):
        if side < PIXELS_PER_TOKEN or side % PIXELS_PER_TOKEN:
            below = max(PIXELS_PER_TOKEN, side // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN)
            raise UserError(
                f"{name} is {side} pixels.",
                "Wan takes sides that are multiples of 16.",
                f"Use {below} or {below + PIXELS_PER_TOKEN}.",
            )
    return ClipSize(width, height, frames)
