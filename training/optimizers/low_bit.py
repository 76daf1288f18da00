"""An optimizer's memory in 8 bits a number, by blocks with a scale each (Dettmers et al. 2022), in levels of our own.

The levels of that paper are a hundredth apart near a block's largest number and as wide as the number itself a
thousandth below it, and squares are kept as they are: a weight whose gradient is 1/1,000 of its neighbour's then goes
up to fifty times too far. Here level i of n is (i / n) to a power, which grows wider slowly, and squares are kept as
the levels of their roots. And a number between two levels goes to either, in turns and as often as it is near: to the
nearest one each time, a change of 1/1,000 a step (beta2 0.999) would be rounded away for ever.
"""

from __future__ import annotations

from functools import cache

import torch

BLOCK = 256
"""Numbers that share a scale."""
LEAST = 4096
"""A smaller tensor is kept in float32: there is little to save, and its numbers differ more."""
_TINY = torch.finfo(torch.float32).tiny
_SIGNED, _SQUARES = (127, 2), (255, 3)
"""Levels beside 0, and how many times a number is squared: the powers are 4 and 8."""
# Steps of the plane's most even sequence (Roberts 2018, R2) as parts of 2^32.
_STEP, _OTHER_STEP, _ONE = 3242174889, 2447445414, 1 << 32


def fits_blocks(tensor: torch.Tensor) -> bool:
    """Whether a tensor is large enough, and divides into whole blocks."""
    return tensor.numel() >= LEAST and tensor.numel() % BLOCK == 0


def encode(value: torch.Tensor, *, signed: bool, turn: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 codes in the value's shape, and a float32 scale for each block: its largest absolute value.

    signed=False is for squares: above 0, they never become 0. turn: the step; over many turns a number's codes stand
    for it on average. Which of two levels it takes follows from turn and place alone.
    """
    count, squarings = _SIGNED if signed else _SQUARES
    blocks = value.reshape(-1, BLOCK)
    scale = blocks.abs().amax(-1).clamp(min=_TINY)
    part = blocks.abs().div_(scale.unsqueeze(1))
    lower = part
    for _ in range(squarings):
        lower = lower.sqrt()
    lower = lower.mul_(count).floor_()
    below, above = _level(lower, count, squarings), _level(lower + 1, count, squarings)
    up = part - below > _thresholds(part, turn, signed=signed) * (above - below)
    levels = (lower + up).clamp_(max=count)
    levels = levels.copysign_(blocks).add_(count) if signed else torch.maximum(levels, part > 0)
    return levels.to(torch.uint8).view(value.shape), scale


def decode(codes: torch.Tensor, scale: torch.Tensor, *, signed: bool) -> torch.Tensor:
    """The float32 values that codes and scales stand for."""
    count, squarings = _SIGNED if signed else _SQUARES
    number = codes.reshape(-1, BLOCK).float()
    if signed:
        number = number - count
    values = _level(number, count, squarings).copysign_(number)
    return values.mul_(scale.unsqueeze(1)).view(codes.shape)


def _level(number: torch.Tensor, count: int, squarings: int) -> torch.Tensor:
    part = number / count
    for _ in range(squarings):
        part = part.square()
    return part


def _thresholds(blocks: torch.Tensor, turn: int, *, signed: bool) -> torch.Tensor:
    """How far to the next level a number may be and still be rounded down: 0 to below 1, spread evenly over the places
    of each turn and over the turns of each place."""
    # Two moments of a weight are not rounded up together.
    by_turn, by_place = (_STEP, _OTHER_STEP) if signed else (_OTHER_STEP, _STEP)
    places = _spread_places(blocks.numel(), by_place, blocks.device).view(blocks.shape)
    return (places + turn * by_turn % _ONE / _ONE).frac_()


@cache
def _spread_places(count: int, step: int, device: torch.device) -> torch.Tensor:
    """The same for all weights of a size: a few MB."""
    spread = torch.arange(count, device=device) * step % _ONE
    return (spread / _ONE).float().frac_()
