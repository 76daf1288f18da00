"""The toy world: one shape on a grey ground, moving by rule, 64 x 64 pixels, 17 frames at 16 fps.

Shapes are coloured and grounds are grey, so that a measure finds the shape by its colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError

SIDE_PX, FRAMES, FPS = 64, 17, 16

SHAPES = ("circle", "square", "triangle")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.15, 0.30, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.65, 0.20, 0.85),
    "cyan": (0.10, 0.80, 0.85),
}
SIZES_PX: dict[str, tuple[float, float]] = {"small": (5.0, 6.0), "big": (7.5, 8.5)}
"""Least and greatest radius of a size."""
GROUNDS = ("plain", "shaded", "tiled")

KNOWN_LOOKS, HELD_OUT_LOOKS = ("plain", "spotted"), ("striped", "outlined")
LOOKS = KNOWN_LOOKS + HELD_OUT_LOOKS

# Steps and turns are chosen so that every shape stays in the picture from every start.
START_PX, STEP_PX = 5.0, 15.0

Motion = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""motion(time in 0..1): where the shape is, right and down of its start in px, and its size over the first."""


def _straight(dx: float, dy: float) -> Motion:
    return lambda t: (dx * t, dy * t, torch.ones_like(t))


def _resizing(gain: float) -> Motion:
    return lambda t: (0 * t, 0 * t, 1 + gain * t)


def _loop(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    angle = 2 * math.pi * t
    return 7 * angle.sin(), -7 * (1 - angle.cos()), torch.ones_like(t)


def _bounce(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return 0 * t, -14 * (2 * math.pi * t).sin().abs(), torch.ones_like(t)


def _zigzag(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wave = torch.asin((3 * math.pi * t).sin()) * 2 / math.pi
    return 9 * wave, 6 * t, torch.ones_like(t)


_KNOWN: dict[str, Motion] = {
    "left": _straight(-STEP_PX, 0),
    "right": _straight(STEP_PX, 0),
    "up": _straight(0, -STEP_PX),
    "down": _straight(0, STEP_PX),
    "still": _straight(0, 0),
    "grow": _resizing(0.6),
    "shrink": _resizing(-0.45),
}
_HELD_OUT: dict[str, Motion] = {"loop": _loop, "bounce": _bounce, "zigzag": _zigzag}
MOTIONS = {**_KNOWN, **_HELD_OUT}
KNOWN_MOTIONS, HELD_OUT_MOTIONS = tuple(_KNOWN), tuple(_HELD_OUT)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that a clip shows; `render` makes the same pixels of it every time."""

    shape: str
    colour: str
    size: str
    ground: str
    motion: str
    look: str = "plain"
    first_look: str | None = None
    """What the first frame shows when the clip turns into `look`; None: `look` from the start."""
    radius_px: float = 8.0
    start_px: tuple[float, float] = (32.0, 32.0)
    """Right and down of the upper left corner."""
    ground_light: float = 0.5
    ground_turn: float = 0.0
    """Where the ground's shade or tiles begin, in 0..1."""

    def __post_init__(self) -> None:
        check_word("motion", self.motion, MOTIONS)
        for look in (self.look, self.first_look or self.look):
            check_word("look", look, LOOKS)


def check_word(what: str, word: str, known: Sequence[str] | dict[str, Motion]) -> None:
    """A `UserError` with the known words, unless `word` is one of them."""
    if word not in known:
        raise UserError(
            f"The {what} is {word!r}.",
            f"The toy world has {', '.join(known)}.",
            "Choose one of them.",
        )


def draw_scenes(
    count: int,
    *,
    seed: int,
    motions: Sequence[str] = KNOWN_MOTIONS,
    looks: Sequence[str] = KNOWN_LOOKS,
) -> list[Scene]:
    """`count` scenes, every word equally often by chance; the same seed draws the same scenes."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: Sequence[str]) -> str:
        return words[int(torch.randint(len(words), (), generator=generator))]

    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    scenes = []
    for _ in range(count):
        size = pick(tuple(SIZES_PX))
        middle = SIDE_PX / 2
        scenes.append(
            Scene(
                shape=pick(SHAPES),
                colour=pick(tuple(COLOURS)),
                size=size,
                ground=pick(GROUNDS),
                motion=pick(motions),
                look=pick(looks),
                radius_px=draw(*SIZES_PX[size]),
                start_px=(
                    draw(middle - START_PX, middle + START_PX),
                    draw(middle - START_PX, middle + START_PX),
                ),
                ground_light=draw(0.3, 0.7),
                ground_turn=draw(0, 1),
            )
        )
    return scenes


def motion_path(motion: str, frames: int = FRAMES) -> torch.Tensor:
    """(frames, 3): px right and down of the start, and size over the first size."""
    check_word("motion", motion, MOTIONS)
    return torch.stack(MOTIONS[motion](torch.linspace(0, 1, frames)), dim=-1)


def render(scenes: Sequence[Scene], frames: int = FRAMES) -> torch.Tensor:
    """(scenes, frames, 64, 64, 3) in [0, 1], edges softened over one pixel."""
    paths = torch.stack([motion_path(scene.motion, frames) for scene in scenes])
    start = torch.tensor([scene.start_px for scene in scenes])
    radius = _column([scene.radius_px for scene in scenes]) * paths[..., 2, None, None]
    centre = start[:, None] + paths[..., :2]
    grid = torch.arange(SIDE_PX) + 0.5
    right = grid.view(1, 1, 1, -1) - centre[..., 0, None, None]
    down = grid.view(1, 1, -1, 1) - centre[..., 1, None, None]
    outside = _distance_outside(scenes, right, down, radius)
    cover = (0.5 - outside).clamp(0, 1)
    white, black = _paint(scenes, right, down, outside, radius)
    # Every channel: ground outside; inside the colour, darkened, then whitened.
    ground = (1 - cover) * _grounds(scenes) + cover * white
    tone = cover * (1 - black) * (1 - white)
    colour = torch.tensor([COLOURS[scene.colour] for scene in scenes]).view(-1, 1, 1, 1, 3)
    return torch.addcmul(ground.unsqueeze(-1), tone.unsqueeze(-1), colour)


def render_stills(scenes: Sequence[Scene]) -> torch.Tensor:
    """(scenes, 1, 64, 64, 3): the first frames alone."""
    return render(scenes, frames=1)


def _column(values: Sequence[float] | torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def _distance_outside(
    scenes: Sequence[Scene], right: torch.Tensor, down: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """(scenes, frames, 64, 64): px from the shape's edge, negative inside."""
    flat = right.abs().maximum(down.abs())
    slope = down.maximum(right.abs() * math.sqrt(3) / 2 - down / 2)
    distances = torch.stack(
        [
            (right**2 + down**2).sqrt() - radius,
            flat - 0.87 * radius,
            # An equilateral triangle of circumradius 1.35 has its edges at half of that.
            slope - 1.35 / 2 * radius,
        ]
    )
    index = torch.tensor([SHAPES.index(scene.shape) for scene in scenes])
    return distances[index, torch.arange(len(scenes))]


def _paint(
    scenes: Sequence[Scene],
    right: torch.Tensor,
    down: torch.Tensor,
    outside: torch.Tensor,
    radius: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the looks add to the plain colour: white, then black, (scenes, frames, 64, 64) in 0..1."""
    none = torch.zeros_like(outside)
    stripes = (0.5 + 2 * ((right + down) * 2 * math.pi / 8).sin()).clamp(0, 1)
    rim = (outside + 2.5).clamp(0, 1)
    spot = 0.75 * (0.5 + 0.45 * radius - (right**2 + down**2).sqrt()).clamp(0, 1)
    white = {"plain": none, "spotted": none, "striped": stripes, "outlined": rim}
    black = {"plain": none, "spotted": spot, "striped": none, "outlined": none}
    turned = _turned(outside.shape[1])

    def of_each(amount: dict[str, torch.Tensor]) -> torch.Tensor:
        looks = [(scene.first_look or scene.look, scene.look) for scene in scenes]
        return torch.stack(
            [torch.lerp(amount[a][i], amount[b][i], turned) for i, (a, b) in enumerate(looks)]
        )

    return of_each(white), of_each(black)


def _turned(frames: int) -> torch.Tensor:
    """(frames, 1, 1): how far a clip has gone from its first look to its look; done after a quarter."""
    return (torch.arange(frames) / (FRAMES // 4)).clamp(0, 1).view(-1, 1, 1)


def _grounds(scenes: Sequence[Scene]) -> torch.Tensor:
    """(scenes, 1, 64, 64) greys."""
    x = (torch.arange(SIDE_PX) + 0.5).view(1, 1, 1, -1) / SIDE_PX
    y = x.transpose(2, 3)
    turn = _column([scene.ground_turn for scene in scenes])
    angle = 2 * math.pi * turn
    shade = 0.35 * ((x - 0.5) * angle.cos() + (y - 0.5) * angle.sin())
    tiles = 0.07 * torch.sign(((x + turn) * 4 * math.pi).sin() * ((y + turn) * 4 * math.pi).sin())
    kinds = torch.stack([torch.zeros_like(shade), shade, tiles])
    index = torch.tensor([GROUNDS.index(scene.ground) for scene in scenes])
    light = _column([scene.ground_light for scene in scenes])
    return light + kinds[index, torch.arange(len(scenes))]
