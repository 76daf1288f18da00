"""The two families of Wan models, and which part of the noise each expert owns."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .errors import UserError

Role = Literal["high_noise", "low_noise", "single"]
Task = Literal["i2v", "t2v"]

A14B = "wan 2.2 A14B"
SINGLE = "single model"
AUTO = "auto"
FAMILIES = (AUTO, A14B, SINGLE)

# wan/configs/wan_i2v_A14B.py and wan_t2v_A14B.py of Wan-Video/Wan2.2, `boundary`.
BOUNDARIES: dict[Task, float] = {"i2v": 0.9, "t2v": 0.875}

ROLES: dict[str, tuple[Role, ...]] = {A14B: ("high_noise", "low_noise"), SINGLE: ("single",)}


class SigmaRange(NamedTuple):
    """Noise levels `low <= sigma < high`; a range that ends at 1 includes it."""

    low: float
    high: float


def sigma_range(role: Role, boundary: float) -> SigmaRange:
    """The noise an expert is trained on; sigma == boundary belongs to the high expert."""
    if role == "high_noise":
        return SigmaRange(boundary, 1.0)
    if role == "low_noise":
        return SigmaRange(0.0, boundary)
    return SigmaRange(0.0, 1.0)


def task_of(input_channels: int, latent_channels: int) -> Task:
    """`i2v` when the network takes mask and image channels beside the noisy latent (36 = 16 + 4 + 16)."""
    return "i2v" if input_channels > latent_channels else "t2v"


def resolve_family(choice: str, num_models: int) -> str:
    """`auto` becomes A14B with two MODELs, a single model with one.

    The host cannot tell a lone 2.2 expert from Wan 2.1, so a choice made by hand is kept.
    """
    if choice not in FAMILIES:
        raise UserError(
            f"family is {choice!r}.", f"It can be {', '.join(FAMILIES)}.", "Choose one of them."
        )
    if choice == SINGLE and num_models > 1:
        raise UserError(
            f"family is {SINGLE!r}, but two MODELs are connected.",
            "A single model has one MODEL; two MODELs are the experts of Wan 2.2 A14B.",
            f"Disconnect model_low, or set family to {A14B!r}.",
        )
    if choice == AUTO:
        return A14B if num_models == 2 else SINGLE
    return choice
