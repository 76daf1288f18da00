"""Clips that are the same, or nearly: by the digests of their files, and by perceptual hashes of their frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Of 64 bits, as the mean over 5 frames of a clip. Parts of the three development films coded again at a third of the
# size and crf 40 differ from themselves by at most 4.0, parts of different films by at least 24.8, and neighbouring
# seconds of one shot by 5.6 (a cartoon), 7.2 (a talking man) and 16 (a street). The limits are ours.
NEAR_BITS = 8.0
# Of one file the seconds of a shot are no copies, however alike: only a picture that hardly changes.
NEAR_BITS_OF_ONE_FILE = 2.0
# Hashes know light and dark in coarse shapes alone; copies have the same colours, too. Grey levels between blocks of a
# twelfth of the picture, on average and at most: 6.7 and 36 for the worst of those copies, 5.1 and 103 for the cartoon
# a third of a second later.
NEAR_TINT, NEAR_TINT_OF_A_BLOCK = 8.0, 110.0
BLOCK = 512
"""Clips compared at a time with all others, so that 10,000 need 40 MB."""


class Part(NamedTuple):
    """What tells a clip from others: its file, and its first and last time in it."""

    path: Path
    digest: str
    first_s: float
    last_s: float


class Copy(NamedTuple):
    """Clip `clip` shows what clip `of`, an earlier one, shows."""

    clip: int
    of: int
    bits: float
    """How far their hashes are from each other, of 64; 0 for copies of a file."""


def same_files(parts: Sequence[Part]) -> list[Copy]:
    """Clips of files whose content is that of another file, each with the first of its kind."""
    first: dict[tuple[str, float], int] = {}
    found = []
    for number, part in enumerate(parts):
        if not part.digest:
            continue
        original = first.setdefault((part.digest, part.first_s), number)
        if parts[original].path != part.path:
            found.append(Copy(number, original, 0.0))
    return found


def near_copies(
    hashes: np.ndarray, tints: Sequence[np.ndarray], parts: Sequence[Part], usable: np.ndarray
) -> list[Copy]:
    """Clips that look like an earlier one, each with the nearest of those.

    hashes: (clips, 5, 64) bool. tints: (5, 12, 12, 3) of each. usable: (clips,) bool; clips without a picture are
    like each other.
    Parts of a file that overlap are so by design, and copies of a file are found by `same_files`.
    """
    nearest: dict[int, Copy] = {}
    for first, second, bits in _close_pairs(hashes, NEAR_BITS):
        a, b = parts[first], parts[second]
        if not (usable[first] and usable[second]) or (
            a.digest and a.path != b.path and a.digest == b.digest
        ):
            continue
        if a.path == b.path and (bits > NEAR_BITS_OF_ONE_FILE or _overlap(a, b)):
            continue
        if not _same_colours(tints[first], tints[second]):
            continue
        if second not in nearest or bits < nearest[second].bits:
            nearest[second] = Copy(second, first, bits)
    return [nearest[number] for number in sorted(nearest)]


def _close_pairs(hashes: np.ndarray, limit: float) -> Iterator[tuple[int, int, float]]:
    """(earlier, later, mean bits) of all pairs that differ by at most `limit`."""
    samples = hashes.shape[1]
    # Of vectors of -1 and 1 the product counts equal bits less different ones.
    signs = (hashes.reshape(len(hashes), -1) * 2 - 1).astype(np.float32)
    length = signs.shape[1]
    for start in range(0, len(signs), BLOCK):
        block = signs[start : start + BLOCK]
        bits = (length - block @ signs[start:].T) / 2 / samples
        later, close = np.arange(len(signs) - start), bits <= limit
        for row, column in zip(
            *np.nonzero(close & (later > np.arange(len(block))[:, None])), strict=True
        ):
            yield start + int(row), start + int(column), float(bits[row, column])


def _same_colours(a: np.ndarray, b: np.ndarray) -> bool:
    apart = np.abs(a.astype(np.float32) - b)
    return bool(apart.mean() <= NEAR_TINT and apart.max() <= NEAR_TINT_OF_A_BLOCK)


def _overlap(a: Part, b: Part) -> bool:
    return a.first_s <= b.last_s and b.first_s <= a.last_s


def without(copies: Iterable[Copy], clips: set[int]) -> list[Copy]:
    """Those that are not about `clips`."""
    return [copy for copy in copies if copy.clip not in clips]
