"""What a clip shows, from its pixels alone: clips are (frames, height, width, 3) in [0, 1].

The toy world's shapes are the only colour in it, which makes their path and size exact. On a real
video the same measures follow what stands out from the colours of the picture's border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .world import COLOURS, MOTIONS, motion_path

PATH_ERROR_PX = 3.0
"""A clip goes the asked path when it is of the asked kind and this close to it, root mean square."""
RIM = 0.05
"""Least whiteness of an outline over its surroundings, which shapes without one are never above."""
BORDER = 1 / 16
"""Width of the border that shows the ground alone, as a share of the side."""


class Track(NamedTuple):
    """The thing that stands out, frame by frame."""

    centre_px: torch.Tensor
    """(frames, 2): right and down of the upper left corner."""
    radius_px: torch.Tensor
    """(frames,): of a disc of the same area."""


class PathShape(NamedTuple):
    """A track in three numbers."""

    direction_deg: float
    """From the first place to the last: 0 is right, 90 is up."""
    speed_px: float
    """Way per frame."""
    curvature: float
    """1 - (distance from start to end) / way: 0 is straight, 1 comes back to the start."""


class Obedience(NamedTuple):
    """How a clip follows the motion that was asked for."""

    kind: bool
    """The asked motion is the nearest of all the world's motions."""
    path: bool
    """Right kind, and nearer than PATH_ERROR_PX."""
    path_error_px: float
    nearest: str


def salience(clip: torch.Tensor) -> torch.Tensor:
    """(frames, height, width): how far each pixel's colour is from the border's, brightness left out."""
    chroma = clip - clip.mean(-1, keepdim=True)
    edge = max(1, round(BORDER * min(clip.shape[1:3])))
    border = torch.cat(
        [
            chroma[:, :edge].flatten(1, 2),
            chroma[:, -edge:].flatten(1, 2),
            chroma[:, :, :edge].flatten(1, 2),
            chroma[:, :, -edge:].flatten(1, 2),
        ],
        dim=1,
    )
    return (chroma - border.median(dim=1).values[:, None, None]).norm(dim=-1)


def track(clip: torch.Tensor) -> Track:
    """Where the thing that stands out is, and how large."""
    strength = salience(clip)
    # Half of the strongest colour is the shape's edge; less than a quarter is ground or codec noise.
    strongest = torch.quantile(strength.flatten(1), 0.985, dim=1).median().clamp(min=1e-3)
    weight = ((strength / strongest - 0.25) / 0.5).clamp(0, 1)
    total = weight.sum(dim=(1, 2)).clamp(min=1e-6)
    rows, columns = (torch.arange(size) + 0.5 for size in clip.shape[1:3])
    right = (weight.sum(1) * columns).sum(1) / total
    down = (weight.sum(2) * rows).sum(1) / total
    return Track(torch.stack([right, down], dim=1), (total / math.pi).sqrt())


def path_shape(found: Track) -> PathShape:
    """Direction, speed and curvature of a track."""
    right, down = (found.centre_px[-1] - found.centre_px[0]).tolist()
    steps = (found.centre_px[1:] - found.centre_px[:-1]).norm(dim=1)
    way = steps.sum().item()
    curvature = 1 - math.hypot(right, down) / way if way > 1e-6 else 0.0
    return PathShape(
        math.degrees(math.atan2(-down, right)), way / max(1, len(steps)), max(0.0, curvature)
    )


def path_error_px(found: Track, motion: str) -> float:
    """Root mean square over the frames of how far place and radius are from the motion's rule."""
    rule = motion_path(motion, len(found.radius_px))
    place = found.centre_px - found.centre_px[0] - rule[:, :2]
    radius = found.radius_px - found.radius_px[0] * rule[:, 2]
    return (place.square().sum(1) + radius.square()).mean().sqrt().item()


def obedience(clip: torch.Tensor, asked: str) -> Obedience:
    """Which of all the world's motions a clip shows, against the one that was asked for."""
    found = track(clip)
    errors = {motion: path_error_px(found, motion) for motion in MOTIONS}
    nearest = min(errors, key=errors.__getitem__)
    kind = nearest == asked
    return Obedience(kind, kind and errors[asked] < PATH_ERROR_PX, errors[asked], nearest)


def colour_of(clip: torch.Tensor) -> str:
    """The world's colour nearest in hue to what stands out."""
    weight = salience(clip)
    weight = (weight - 0.5 * weight.amax()).clamp(min=0).unsqueeze(-1)
    mean = (clip * weight).sum(dim=(0, 1, 2)) / weight.sum().clamp(min=1e-6)
    hues = {
        name: F.cosine_similarity(_hue(mean), _hue(torch.tensor(colour)), dim=0).item()
        for name, colour in COLOURS.items()
    }
    return max(hues, key=hues.__getitem__)


def _hue(colour: torch.Tensor) -> torch.Tensor:
    return colour - colour.mean()


class Texture(NamedTuple):
    """Patterns on the thing that stands out, each 0 where there is none."""

    stripes: float
    """Amplitude of the strongest wave in its whiteness, of the stripes' length in either direction."""
    rim: float
    """How much whiter the 3 px around its colour are than what lies beyond them."""
    spot: float
    """How much darker its middle is than the rest."""


def texture(frame: torch.Tensor) -> Texture:
    """Patterns on the thing in one frame (height, width, 3)."""
    found = track(frame[None])
    centre, radius = found.centre_px[0], found.radius_px[0].clamp(min=2)
    rows, columns = (torch.arange(size) + 0.5 for size in frame.shape[:2])
    right, down = columns[None] - centre[0], rows[:, None] - centre[1]
    distance = (right**2 + down**2).sqrt()
    white, bright = frame.amin(-1), frame.amax(-1)
    body, middle = distance < radius, distance < 0.35 * radius
    ring = body & (distance > 0.6 * radius)
    around = (distance > radius) & (distance < radius + 3)
    beyond = (distance > radius + 4) & (distance < radius + 7)
    rim = _mean(white, around) - _mean(white, beyond)
    spot = _mean(bright, ring) - _mean(bright, middle)
    return Texture(
        _wave(white - _mean(white, body), body, right, down),
        max(0.0, rim.item()),
        max(0.0, spot.item()),
    )


def look_of(frame: torch.Tensor) -> str:
    """The world's look that the thing in one frame has."""
    found = texture(frame)
    # Between the looks that have the pattern and those that do not, after the miniature VAE, which
    # leaves two thirds of the stripes' contrast. A rim is a wave too, of half its own whiteness.
    if found.stripes > max(0.2, 1.8 * found.rim):
        return "striped"
    if found.spot > 0.28:
        return "spotted"
    return "outlined" if found.rim > RIM else "plain"


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def _wave(
    values: torch.Tensor, where: torch.Tensor, right: torch.Tensor, down: torch.Tensor
) -> float:
    """Largest amplitude of a diagonal wave of 8 px along either axis, inside `where`."""
    found = 0.0
    for side in (1, -1):
        phase = (right + side * down) * 2 * math.pi / 8
        found = max(
            found,
            2
            * torch.hypot(
                *(_mean(values * f(phase), where) for f in (torch.sin, torch.cos))
            ).item(),
        )
    return found


def motion_magnitude(clip: torch.Tensor) -> float:
    """Mean change of a pixel from one frame to the next, 0 for a still picture."""
    return (clip[1:] - clip[:-1]).abs().mean().item() if len(clip) > 1 else 0.0


def temporal_consistency(clip: torch.Tensor) -> float:
    """Mean correlation of neighbouring frames, 1 for a still picture, about 0 for unrelated ones."""
    flat = clip.flatten(1) - clip.flatten(1).mean(1, keepdim=True)
    same = (clip[1:] == clip[:-1]).flatten(1).all(1)
    return torch.where(same, 1.0, F.cosine_similarity(flat[1:], flat[:-1], dim=1)).mean().item()


def camera_shift_px(clip: torch.Tensor) -> torch.Tensor:
    """(frames - 1, 2): px right and down that the whole picture moves, by least squares on its gradients.

    Lucas and Kanade 1981 with one window; right for shifts well below the size of what is shown.
    """
    grey = F.avg_pool2d(clip.mean(-1)[:, None], 4, stride=1)[:, 0]
    mean = (grey[1:] + grey[:-1]) / 2
    down, right = torch.gradient(mean, dim=(1, 2))
    change = grey[1:] - grey[:-1]
    gradients = torch.stack([right.flatten(1), down.flatten(1)], dim=-1)
    normal = gradients.transpose(1, 2) @ gradients + 1e-6 * torch.eye(2)
    return -torch.linalg.solve(normal, (gradients.transpose(1, 2) @ change.flatten(1)[..., None]))[
        ..., 0
    ]


def diversity(clips: Sequence[torch.Tensor]) -> float:
    """Mean root mean square difference over all pairs of clips; 0 when they are all the same."""
    pairs = [_distance(a, b) for i, a in enumerate(clips) for b in clips[:i]]
    return sum(pairs) / len(pairs) if pairs else 0.0


def closeness(clip: torch.Tensor, training_clips: Sequence[torch.Tensor]) -> float:
    """Peak signal to noise in dB against the nearest training clip; above 30 is a copy."""
    nearest = min(_distance(clip, other) for other in training_clips)
    return -20 * math.log10(max(nearest, 1e-5))


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).square().mean().sqrt().item()
