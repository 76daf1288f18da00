"""Names that trainers have for the same thing: optimizers, layers, models."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...wan.families import A14B, SINGLE, Role, Task
from ...wan.lora.adapters import DEFAULT_TARGETS
from ..optimizers.names import LIBRARY
from .documents import AI_TOOLKIT, DIFFUSION_PIPE, MUSUBI

ATTENTION = (DEFAULT_TARGETS[0],)
"""Without the feed-forward layers; all three can leave those out."""

_THEIR_OPTIMIZERS = {
    DIFFUSION_PIPE: {
        "adamw": "adamw",
        "adamw 8-bit": "adamw8bit",
        "adamw kahan": "adamw_optimi",
        "adamw 8-bit kahan": "AdamW8bitKahan",
        "automagic": "automagic",
        "prodigy": "Prodigy",
    },
    AI_TOOLKIT: {
        "adamw": "adamw",
        "adamw 8-bit": "adamw8bit",
        "adamw kahan": "adamw",
        "adamw 8-bit kahan": "adamw8bit",
        "automagic": "automagic",
        "prodigy": "prodigy",
    },
    MUSUBI: {
        "adamw": "AdamW",
        "adamw 8-bit": "AdamW8bit",
        "adamw kahan": "AdamW",
        "adamw 8-bit kahan": "AdamW8bit",
        "automagic": "AdamW",
        "prodigy": "prodigyopt.Prodigy",
    },
}
_OUR_OPTIMIZERS = {
    "": "adamw",
    "adamw": "adamw",
    "adamw8bit": "adamw 8-bit",
    "adamw8": "adamw 8-bit",
    "pagedadamw8bit": "adamw 8-bit",
    "adamw_optimi": "adamw kahan",
    "optimi.adamw": "adamw kahan",
    "adamw8bitkahan": "adamw 8-bit kahan",
    "automagic": "automagic",
    "prodigy": "prodigy",
}
_LIBRARY = {DIFFUSION_PIPE: "", MUSUBI: "pytorch_optimizer."}
"""How a class of pytorch_optimizer is called where any can be named."""
REPLACEMENT_RATE = 1e-4
"""For optimizers that find their rate themselves and are given a factor near 1 instead."""
SEEDS = 2**32
"""The seeds that NumPy takes are below."""


def their_optimizer(trainer: str, name: str) -> str:
    """The nearest optimizer that the trainer has; AdamW for a name that is not known here."""
    names = _THEIR_OPTIMIZERS[trainer]
    if name.startswith(LIBRARY) and trainer in _LIBRARY:
        return _LIBRARY[trainer] + name.removeprefix(LIBRARY)
    return names.get(name, names["adamw"])


class OurOptimizer(NamedTuple):
    name: str
    note: str | None = None
    finds_rate: bool = False
    """Its rate is a factor, not a rate."""


def our_optimizer(theirs: str) -> OurOptimizer:
    """The optimizer of a plan, and what to say when theirs is not here."""
    plain = theirs.strip().lower()
    found = _OUR_OPTIMIZERS.get(plain) or _OUR_OPTIMIZERS.get(plain.rpartition(".")[2])
    if found:
        return OurOptimizer(found)
    if plain.startswith("automagic"):
        return OurOptimizer("automagic", f"{theirs} is read as automagic, its first form.")
    finds_rate = "prodigy" in plain or plain.startswith("dadapt")
    rate = f"; it finds its rate itself, so {REPLACEMENT_RATE:g} is set" if finds_rate else ""
    return OurOptimizer(
        "adamw", f"The optimizer {theirs} is not here: AdamW takes its place{rate}.", finds_rate
    )


def second_beta(betas: object) -> float:
    """AdamW's memory of squares, from a pair as text or list; 0.999 where there is none."""
    pair = re.findall(r"[\d.eE+-]+", betas) if isinstance(betas, str) else betas
    try:
        return float(pair[1])  # type: ignore[index] - anything else is what the except is for
    except (TypeError, ValueError, IndexError, KeyError):
        return 0.999


class ModelName(NamedTuple):
    family: str | None
    task: Task | None
    role: Role | None


def model_in(*names: str) -> ModelName:
    """What the names of models and files say of them; None where they say nothing."""
    text = " ".join(names).lower().replace("\\", "/")
    family = role = task = None
    if re.search(r"a14b|wan[-_]?2[._]?2(?!.*5b)", text):
        family = A14B
    elif re.search(r"wan[-_]?2[._]?1|1[._]3b|5b", text):
        family = SINGLE
    if re.search(r"high[-_]?noise", text):
        role = "high_noise"
    elif re.search(r"low[-_]?noise", text):
        role = "low_noise"
    if "i2v" in text or "flf2v" in text:
        task = "i2v"
    elif "t2v" in text or "t2i" in text:
        task = "t2v"
    return ModelName(family, task, role)
