"""Weights in bfloat16 that keep what rounding takes away: Kahan summation with a remainder that is exact.

Kahan's remainder (1965; for networks Zamirai et al. 2020, algorithm 3) is itself rounded to 16 bits. Here it is the
lower half of the float32 value's bits: as small, and with it a sum in bfloat16 is the sum in float32 to the last bit.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch

REMAINDER = "remainder"
_HALF = 0x8000


def exact_value(weight: torch.Tensor, state: MutableMapping[str, torch.Tensor]) -> torch.Tensor:
    """The weight in float32, with what bfloat16 could not hold; a float32 weight is its own value."""
    if REMAINDER not in state:
        return weight.detach().float()
    upper = weight.detach().view(torch.int16).to(torch.int32) << 16
    return (upper + state[REMAINDER]).view(torch.float32)


def store_value(
    weight: torch.Tensor,
    value: torch.Tensor,
    state: MutableMapping[str, torch.Tensor],
    *,
    keep: bool = True,
) -> None:
    """Writes a float32 value into the weight; with `keep`, what bfloat16 rounds away is put into `state`."""
    if not keep or weight.dtype == torch.float32:
        state.pop(REMAINDER, None)
        weight.copy_(value)
        return
    bits = value.view(torch.int32)
    # To the nearest: the remainder is at most half of the last place, on either side.
    upper = (bits + _HALF) >> 16
    weight.view(torch.int16).copy_(upper)
    state[REMAINDER] = (bits - (upper << 16)).to(torch.int16)
