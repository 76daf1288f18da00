"""Which clip, view, noise and sigma each micro-batch sees.

Everything here is a pure function of the plan and a counter: a resumed run needs no random state.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch

from ..wan.errors import UserError
from ..wan.families import Role, sigma_range
from ..wan.timesteps import draw_sigmas
from .plans.plan import TrainingPlan

GOLDEN = (5**0.5 - 1) / 2
REPEATS = (0.01, 1000.0)
"""How rarely and how often a clip can be shown in an epoch."""
STRATA = 16
"""Micro-batches over which an expert's sigmas cover its range evenly."""


def generator_for(seed: int, *words: object) -> torch.Generator:
    """Random numbers that depend on their name alone, not on what was drawn before."""
    digest = hashlib.sha256("/".join(map(str, (seed, *words))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Showing(NamedTuple):
    """A clip in a micro-batch, in one of its views."""

    clip: int
    view: int


class BatchOrder:
    """Which clips each of an expert's micro-batches holds: only equal shapes together.

    An epoch shows each clip as often as its `repeats` say; of 0.5, every other epoch, and half of such clips in
    each. The views of a clip come in turn, one a showing. A pure function of the counter: what is kept here is
    the epoch that was asked for last.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        batch: int,
        *,
        seed: int,
        role: Role,
        repeats: Sequence[float] | None = None,
        views: Sequence[int] | None = None,
    ) -> None:
        self._shapes, self._batch, self._seed, self._role = shapes, batch, seed, role
        count = len(shapes)
        self._views = np.asarray(views if views is not None else [1] * count)
        self._whole, self._part = _split_repeats(repeats if repeats is not None else [1.0] * count)
        # Offsets that cover 0 to 1 evenly, in any run of neighbouring clips.
        self._offset = (np.arange(1, count + 1) * GOLDEN) % 1.0
        kinds = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
        self._kinds = np.asarray([kinds[shape] for shape in shapes])
        self._epochs: list[int] = []
        """Those that show something, as far as they have been counted."""
        self._starts = [0]
        """The first micro-batch of each of them, and of the next one."""
        self._kept: tuple[int, list[list[Showing]]] = (-1, [])

    def at(self, index: int) -> list[Showing]:
        """The micro-batch `index`, from 0."""
        while self._starts[-1] <= index:
            epoch = self._next_epoch(self._epochs[-1] + 1 if self._epochs else 0)
            self._epochs.append(epoch)
            self._starts.append(self._starts[-1] + self._batches_in(epoch))
        place = bisect_right(self._starts, index) - 1
        epoch = self._epochs[place]
        if self._kept[0] != epoch:
            self._kept = (epoch, self._epoch(epoch))
        return self._kept[1][index - self._starts[place]]

    def _next_epoch(self, epoch: int) -> int:
        """The first one from `epoch` on that shows something: of rare clips only, most show nothing."""
        while not self._batches_in(epoch):
            rare = self._part > 0
            due = np.floor(epoch * self._part + self._offset)[rare] + 1
            # A clip is shown in the epoch after which its count is `due`; one less, as division rounds.
            last = np.floor((due - self._offset[rare]) / self._part[rare]) - 1
            epoch = max(epoch + 1, int(last.min()) - 1)
        return epoch

    def _shown_before(self, epoch: int) -> np.ndarray:
        """How often each clip was shown in the epochs before this one."""
        return epoch * self._whole + np.floor(epoch * self._part + self._offset).astype(np.int64)

    def _batches_in(self, epoch: int) -> int:
        counts = self._shown_before(epoch + 1) - self._shown_before(epoch)
        of_each_kind = np.bincount(self._kinds, weights=counts).astype(np.int64)
        return int((-(-of_each_kind // self._batch)).sum())

    def _epoch(self, epoch: int) -> list[list[Showing]]:
        before = self._shown_before(epoch)
        counts = self._shown_before(epoch + 1) - before
        clips = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(clips)) - np.repeat(np.cumsum(counts) - counts, counts)
        views = (before[clips] + nth + clips) % self._views[clips]
        showings = list(map(Showing, clips.tolist(), views.tolist()))
        return self._shuffled(showings, generator_for(self._seed, self._role, "order", epoch))

    def _shuffled(self, showings: list[Showing], generator: torch.Generator) -> list[list[Showing]]:
        order = torch.randperm(len(showings), generator=generator).tolist()
        buckets: dict[tuple[int, ...], list[Showing]] = {}
        for place in order:
            buckets.setdefault(self._shapes[showings[place].clip], []).append(showings[place])
        size = self._batch
        groups = [b[i : i + size] for b in buckets.values() for i in range(0, len(b), size)]
        shuffled = torch.randperm(len(groups), generator=generator).tolist()
        return [groups[i] for i in shuffled]


def require_repeats(repeats: Sequence[float]) -> np.ndarray:
    """How often each clip is shown in an epoch: 0, or 0.01 to 1000, and one of them above 0. Raises `UserError`."""
    values = np.asarray(repeats, dtype=np.float64)
    if not (values.size and np.isfinite(values).all() and values.min() >= 0 and values.sum() > 0):
        raise UserError(
            "The dataset shows no clip, or one less than never.",
            "repeats says how often each clip is shown in an epoch: 1 is once, 0.5 every other epoch.",
            "Give the dataset clips, and repeats above 0.",
        )
    least, most = REPEATS
    wrong = values[((values < least) & (values > 0)) | (values > most)]
    if wrong.size:
        raise UserError(
            f"A clip has repeats of {wrong[0]:g}.",
            f"They can be {least:g} to {most:g}, with what the name of its folder says in.",
            "Divide or multiply the repeats of all clips by one number: what counts is their ratio.",
        )
    return values


def _split_repeats(repeats: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Whole showings an epoch, and the fraction beyond."""
    values = require_repeats(repeats)
    whole = np.floor(values)
    return whole.astype(np.int64), values - whole


def batch_indices(
    shapes: Sequence[tuple[int, ...]], batch: int, index: int, *, seed: int, role: Role
) -> list[int]:
    """The clips of an expert's micro-batch `index` when every clip is shown once an epoch."""
    return [clip for clip, _ in BatchOrder(shapes, batch, seed=seed, role=role).at(index)]


def without_caption(plan: TrainingPlan, role: Role, index: int, count: int) -> list[bool]:
    """Which of the `count` samples of an expert's micro-batch `index` are trained without their caption."""
    if not plan.caption_dropout:
        return [False] * count
    drawn = torch.rand(count, generator=generator_for(plan.seed, role, "caption", index))
    return (drawn < plan.caption_dropout).tolist()


def sigmas_at(plan: TrainingPlan, role: Role, index: int, count: int) -> torch.Tensor:
    """(count,) sigmas of an expert's micro-batch `index`, within its range."""
    first = index * count
    groups = range(first // STRATA, (first + count - 1) // STRATA + 1)
    drawn = torch.cat([_sigmas(plan, role, group) for group in groups])
    return drawn[first - groups.start * STRATA :][:count]


def _sigmas(plan: TrainingPlan, role: Role, group: int) -> torch.Tensor:
    """(STRATA,) that cover the expert's range evenly."""
    generator = generator_for(plan.seed, role, "sigma", group)
    return draw_sigmas(
        sigma_range(role, plan.boundary),
        STRATA,
        shift=plan.shift,
        generator=generator,
        **asdict(plan.timesteps),
    )
