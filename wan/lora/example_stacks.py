"""Three stacks to begin with. Their rows name roles, such as `style`, for which a person chooses files."""

from __future__ import annotations

from .recipes import FileNote, Recipe
from .stack import Row

PREFIX = "example: "
"""Before an example's name in lists; no saved stack can be called so, since file names have no colon."""

_SPEED_PAGE = "https://huggingface.co/lightx2v/Wan2.2-Distill-Loras"
_QUALITY_PAGE = "https://huggingface.co/alibaba-pai/Wan2.2-Fun-Reward-LoRAs"


def _role(name: str, kind: str, choose: str, source: str | None = None) -> FileNote:
    return FileNote(name=name, kind=kind, choose=choose, source=source)


def _both(name: str, kind: str, strength: float) -> Row:
    return Row(lora=name, kind=kind, route="both", high=strength, low=strength)


_SPEED = Row(lora="speed_high_noise", lora_low="speed_low_noise", kind="speed", high=1.0, low=1.0)
_SPEED_FILES = tuple(
    _role(
        f"speed_{side}_noise",
        "speed",
        f"a 4-step speed LoRA for the {side}-noise expert",
        _SPEED_PAGE,
    )
    for side in ("high", "low")
)
_SPEED_NOTE = "With speed LoRAs sample 4 steps at cfg 1."

FAST_ANIME = Recipe(
    name=f"{PREFIX}fast anime",
    note=f"Anime in 4 steps. {_SPEED_NOTE} Style too strong: 0.7; too weak: 1.0.",
    rows=(_SPEED, _both("style", "style", 0.9)),
    files=(*_SPEED_FILES, _role("style", "style", "an anime style LoRA")),
)

CINEMATIC_CHARACTER = Recipe(
    name=f"{PREFIX}cinematic character",
    note=f"One person in a film's light. {_SPEED_NOTE} The quality LoRA works on the low-noise expert alone.",
    rows=(
        _SPEED,
        _both("character", "character", 1.1),
        _both("style", "style", 0.8),
        Row(lora="quality", kind="quality", route="low", low=0.4),
    ),
    files=(
        *_SPEED_FILES,
        _role("character", "character", "a LoRA of your character"),
        _role("style", "style", "a cinematic style LoRA"),
        _role("quality", "quality", "a reward LoRA, such as HPSv2.1 or MPS", _QUALITY_PAGE),
    ),
)

INFLUENCER = Recipe(
    name=f"{PREFIX}influencer",
    note=f"One person in a social-media look. {_SPEED_NOTE}",
    rows=(_SPEED, _both("style", "style", 0.85), _both("character", "character", 1.0)),
    files=(
        *_SPEED_FILES,
        _role("style", "style", "a style LoRA of the look, for example photorealistic"),
        _role("character", "character", "a LoRA of your character"),
    ),
)

EXAMPLES = {recipe.name: recipe for recipe in (FAST_ANIME, CINEMATIC_CHARACTER, INFLUENCER)}
