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
# Any two samples so near are of one film: seconds of one shot differ by up to 16, see above.
ONE_FILM_BITS = 16
MOST_COMPARED = 64
"""Of so many clips with the nearest hashes the colours are compared: where all are alike, more tell nothing."""
BLOCK = 512
"""Clips compared at a time with all others, so that 10,000 need 40 MB."""


class Part(NamedTuple):
    """What tells a clip from others: its file, and its first and last time in it."""

    path: Path
    digest: str
    first_s: float
    last_s: float
    frames: int = 0
    """With the times, what tells the rate at which it is read."""


class Copy(NamedTuple):
    """Clip `clip` shows what clip `of`, an earlier one, shows."""

    clip: int
    of: int
    bits: float
    """How far their hashes are from each other, of 64; 0 for copies of a file."""


def same_files(parts: Sequence[Part]) -> list[Copy]:
    """Clips that are in the dataset before, or of files whose content is that of another file.

    Each with the first of its kind.
    """
    first: dict[tuple, int] = {}
    found = []
    for number, part in enumerate(parts):
        clip = (part.path, part.first_s, part.last_s, part.frames)
        original = first.setdefault(clip, number)
        if original == number and part.digest:
            original = first.setdefault((part.digest, part.first_s), number)
            if parts[original].path == part.path:
                continue
        if original != number:
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
    found: dict[int, Copy] = {}
    may = _Allowed(parts, usable)
    for clip, bits in _bits_to_earlier(hashes):
        allowed = np.flatnonzero((bits <= NEAR_BITS) & may.be_copies(clip, bits))
        nearest = allowed[np.argsort(bits[allowed], kind="stable")][:MOST_COMPARED]
        of = next((n for n in nearest if _same_colours(tints[n], tints[clip])), None)
        if of is not None:
            found[clip] = Copy(clip, int(of), float(bits[of]))
            if bits[of] == 0:
                may.stand_back(clip)  # What is like it is like the other one.
    return [found[number] for number in sorted(found)]


class _Allowed:
    """Which clips count as copies if they look alike."""

    def __init__(self, parts: Sequence[Part], usable: np.ndarray) -> None:
        self._paths = _numbered([part.path for part in parts])
        self._digests = _numbered([part.digest or number for number, part in enumerate(parts)])
        self._first_s = np.array([part.first_s for part in parts])
        self._last_s = np.array([part.last_s for part in parts])
        self._usable, self._originals = usable, usable.copy()

    def be_copies(self, clip: int, bits: np.ndarray) -> np.ndarray:
        """(clip,) bool: the earlier clips of which `clip` may be one."""
        if not self._usable[clip]:
            return np.zeros(clip, bool)
        one_file = self._paths[:clip] == self._paths[clip]
        overlap = (self._first_s[:clip] <= self._last_s[clip]) & (
            self._first_s[clip] <= self._last_s[:clip]
        )
        within = (bits <= NEAR_BITS_OF_ONE_FILE) & ~overlap
        same_content = self._digests[:clip] == self._digests[clip]
        return self._originals[:clip] & np.where(one_file, within, ~same_content)

    def stand_back(self, clip: int) -> None:
        """No later one is compared with `clip`."""
        self._originals[clip] = False


def _numbered(values: Sequence[object]) -> np.ndarray:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _bits_to_earlier(hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each clip that is near an earlier one, and its mean bits from all of those."""
    samples = hashes.shape[1]
    # Of vectors of -1 and 1 the product counts equal bits less different ones.
    signs = (hashes.reshape(len(hashes), -1) * 2 - 1).astype(np.float32)
    length = signs.shape[1]
    for start in range(0, len(signs), BLOCK):
        block = signs[start : start + BLOCK]
        bits = (length - block @ signs[: start + len(block)].T) / 2 / samples
        for row in range(len(block)):
            earlier = bits[row, : start + row]
            if (earlier <= NEAR_BITS).any():
                yield start + row, earlier


def _same_colours(a: np.ndarray, b: np.ndarray) -> bool:
    apart = np.abs(a.astype(np.float32) - b)
    return bool(apart.mean() <= NEAR_TINT and apart.max() <= NEAR_TINT_OF_A_BLOCK)


def different(hashes: Sequence[np.ndarray]) -> list[int]:
    """Numbers of clips none of whose samples, (5, 64) bool each, looks like one of those found before."""
    if not hashes:
        return []
    # As in `_bits_to_earlier`, products count bits.
    signs = (np.stack(hashes) * 2 - 1).astype(np.float32)
    samples, length = signs.shape[1:]
    kept = np.empty((len(signs) * samples, length), np.float32)
    found: list[int] = []
    for number, own in enumerate(signs):
        alike = own @ kept[: len(found) * samples].T
        if alike.max(initial=-length) < length - 2 * ONE_FILM_BITS:
            kept[len(found) * samples :][:samples] = own
            found.append(number)
    return found


def without(copies: Iterable[Copy], clips: set[int]) -> list[Copy]:
    """Those that are not about `clips`."""
    return [copy for copy in copies if copy.clip not in clips]
