"""What a tensor of a LoRA file is to its layer, from the end of its key. The endings are data."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Part = Literal[
    "down", "up", "mid", "up bias", "alpha", "magnitude",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2",
    "hada_w1", "hada_w1_a", "hada_w1_b", "hada_w2", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "weight difference", "bias difference", "modulation difference",
]  # fmt: skip

# The word that ends a key, perhaps with an adapter's name and `.weight` after it.
ENDINGS: dict[str, Part] = {
    "lora_A": "down",  # PEFT and most trainers
    "lora_B": "up",
    "lora_down": "down",  # kohya, musubi, LightX2V
    "lora_up": "up",
    "lora.down": "down",  # diffusers of 2023
    "lora.up": "up",
    "lora_mid": "mid",  # LyCORIS, convolutions
    "alpha": "alpha",
    "lora_magnitude_vector": "magnitude",  # PEFT
    "dora_scale": "magnitude",  # LyCORIS, OneTrainer
    "lokr_w1": "lokr_w1",
    "lokr_w1_a": "lokr_w1_a",
    "lokr_w1_b": "lokr_w1_b",
    "lokr_w2": "lokr_w2",
    "lokr_w2_a": "lokr_w2_a",
    "lokr_w2_b": "lokr_w2_b",
    "lokr_t1": "lokr_t1",
    "lokr_t2": "lokr_t2",
    "hada_w1_a": "hada_w1_a",
    "hada_w1_b": "hada_w1_b",
    "hada_w2_a": "hada_w2_a",
    "hada_w2_b": "hada_w2_b",
    "hada_t1": "hada_t1",
    "hada_t2": "hada_t2",
    "diff": "weight difference",  # LightX2V and extracted LoRAs
    "diff_b": "bias difference",
    "diff_m": "modulation difference",
    "w_norm": "weight difference",  # LyCORIS, norms
    "b_norm": "bias difference",
}
_ENDING = re.compile(
    rf"\.({'|'.join(map(re.escape, sorted(ENDINGS, key=len, reverse=True)))})((?:\.\w+)?)$"
    r"|\.(lora_[AB])\.\w+\.(weight|bias)$"
    r"|\.(lora_magnitude_vector)\.\w+\.weight$"
)


class SplitKey(NamedTuple):
    """A key taken apart."""

    stem: str
    """The name of the layer, as the file spells it."""
    part: Part | None
    """None: no key of any kind of LoRA that is known here."""


def split_key(key: str) -> SplitKey:
    """The layer's name and the part of it that a key holds."""
    stem, _, word = key.removesuffix(".weight").rpartition(".")
    if stem and word in ENDINGS:
        return SplitKey(stem, ENDINGS[word])
    found = _ENDING.search(key)
    if found is None:
        return SplitKey(key, None)
    word, tail, factor, of_factor, magnitude = found.groups()
    part = ENDINGS[word or factor or magnitude]
    if ".bias" in (tail, f".{of_factor}"):
        if part != "up":
            return SplitKey(key, None)
        part = "up bias"
    return SplitKey(key[: found.start()], part)
