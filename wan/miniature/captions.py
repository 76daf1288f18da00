"""What is said of a scene of the toy world, in a few fixed sentences."""

from __future__ import annotations

import string
from dataclasses import replace

import torch

from .world import Scene

MOTION_WORDS = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "still": "stands still",
    "grow": "grows",
    "shrink": "shrinks",
    "loop": "loops",
    "bounce": "bounces",
    "zigzag": "zigzags",
}
TEMPLATES = (
    "A {thing} {motion} on a {ground} ground.",
    "A {thing} on a {ground} ground {motion}.",
)
UNKNOWN_MOTIONS = ("{word}", "does {word}", "moves {word}", "moves in a {word}")


def caption(scene: Scene, template: int = 0, motion: str | None = None) -> str:
    """The scene in words; `motion` replaces the words of its motion, and "" leaves them out."""
    words = MOTION_WORDS[scene.motion] if motion is None else motion
    look = scene.first_look or scene.look
    if scene.first_look not in (None, scene.look):
        words = f"{words} and turns {scene.look}".strip()
    thing = " ".join([scene.size, scene.colour, *([look] if look != "plain" else []), scene.shape])
    sentence = TEMPLATES[template].format(thing=thing, ground=scene.ground, motion=words)
    return sentence.replace("  ", " ").replace(" .", ".")


def still_caption(scene: Scene, template: int = 0) -> str:
    """The scene's first frame in words."""
    return caption(replace(scene, look=scene.first_look or scene.look), template, motion="")


def unknown_motion(generator: torch.Generator) -> str:
    """Words for a motion that nobody knows: stands for the trigger words that LoRAs bring."""

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    word = "".join(string.ascii_lowercase[pick(26)] for _ in range(3 + pick(4)))
    word = (word, word.upper(), word.capitalize())[pick(3)]
    return UNKNOWN_MOTIONS[pick(len(UNKNOWN_MOTIONS))].format(word=word)
