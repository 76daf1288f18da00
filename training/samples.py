"""Clips as the network sees them: one by one, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence

from ..wan.conditions import ImageCondition, frame_sigmas, start_frame_mask
from ..wan.shapes import LatentSize
from .cache.latent_cache import EntryReader


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """One clip, its caption and its conditioning, on the CPU, in float32.

    x0: (channels, frames, height, width), normalised latent.
    context: (tokens, width), text embedding.
    mask, image_latent: (4 or channels, frames, height, width), or None for text-to-video.
    clip_vision: (tokens, width), image features of the first frame, where the model takes them.
    known_frames: latent frames at the start that the model is given clean, in the latent itself; they are not learnt.
    """

    name: str
    x0: torch.Tensor
    context: torch.Tensor
    mask: torch.Tensor | None = None
    image_latent: torch.Tensor | None = None
    clip_vision: torch.Tensor | None = None
    known_frames: int = 0


class Samples(Protocol):
    """The clips of a run. Everything but `load` is known without loading a clip."""

    shapes: Sequence[tuple[int, ...]]
    """Of each clip's x0."""
    repeats: Sequence[float]
    """How often each is shown in an epoch."""
    views: Sequence[int]
    """How many cuts and mirrorings of each there are."""
    empty_context: torch.Tensor | None
    """(tokens, width) embedding of no text, where the plan trains some samples without their caption."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EncodedClip:
        """The clip in its first view."""
        ...

    def load(self, index: int, view: int) -> EncodedClip:
        """The clip in one of its views."""
        ...


class ListedSamples:
    """Clips that are in memory already, each in one view."""

    def __init__(
        self,
        clips: Sequence[EncodedClip],
        *,
        repeats: Sequence[float] | None = None,
        empty_context: torch.Tensor | None = None,
    ) -> None:
        self._clips = clips
        self.shapes: Sequence[tuple[int, ...]] = [tuple(clip.x0.shape) for clip in clips]
        self.repeats: Sequence[float] = [1.0] * len(clips) if repeats is None else list(repeats)
        self.views: Sequence[int] = [1] * len(clips)
        self.empty_context = empty_context

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> EncodedClip:
        return self._clips[index]

    def load(self, index: int, view: int) -> EncodedClip:
        """The clip; there is one view of it."""
        del view
        return self._clips[index]


class ViewKeys(NamedTuple):
    """Where a view of a clip lies in the cache; `None` for what the model does not take."""

    latent: str
    condition: str | None = None
    vision: str | None = None


class ClipKeys(NamedTuple):
    """Where a clip lies in the cache. `shape` is that of its x0."""

    name: str
    shape: tuple[int, ...]
    text: str
    views: tuple[ViewKeys, ...]
    repeats: float = 1.0
    known_frames: int = 0


class CachedSamples:
    """Clips that are read from the cache when they are wanted: ten thousand take no more memory than a hundred."""

    def __init__(
        self, clips: Sequence[ClipKeys], read: EntryReader, *, empty_text: str | None = None
    ) -> None:
        self._clips, self._read = clips, read
        self.shapes: Sequence[tuple[int, ...]] = [clip.shape for clip in clips]
        self.repeats: Sequence[float] = [clip.repeats for clip in clips]
        self.views: Sequence[int] = [len(clip.views) for clip in clips]
        self.empty_context: torch.Tensor | None = None if empty_text is None else read(empty_text)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> EncodedClip:
        return self.load(index, 0)

    def load(self, index: int, view: int) -> EncodedClip:
        """Raises `UserError` when an entry has gone since the run began."""
        clip = self._clips[index]
        keys = clip.views[view]
        parts = {"x0": self._read(keys.latent), "context": self._read(clip.text)}
        if keys.condition is not None:
            parts["image_latent"] = self._read(keys.condition)
            parts["mask"] = start_frame_mask(LatentSize(*clip.shape[-3:]))[0]
        if keys.vision is not None:
            parts["clip_vision"] = self._read(keys.vision)
        return EncodedClip(name=clip.name, known_frames=clip.known_frames, **parts)


def as_samples(clips: Sequence[EncodedClip] | Samples) -> Samples:
    """Clips in a list as samples; samples as they are."""
    return ListedSamples(clips) if isinstance(clips, Sequence) else clips


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of one shape, stacked on the device of the network."""

    x0: torch.Tensor
    context: torch.Tensor
    condition: ImageCondition | None
    known_frames: int = 0

    def levels(self, sigma: torch.Tensor) -> torch.Tensor:
        """The noise level of every clip (batch,), or of every frame where some are given (batch, frames)."""
        return frame_sigmas(sigma, self.x0.shape[2], self.known_frames)

    def learnt(self, tensor: torch.Tensor) -> torch.Tensor:
        """The frames (batch, channels, frames, height, width) of which the model is to learn something."""
        return tensor[:, :, self.known_frames :]


def stack_batch(clips: Sequence[EncodedClip], device: torch.device) -> Batch:
    """(batch, ...) tensors of `clips`, which have one shape and as many given frames."""

    def stacked(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.stack(present).to(device) if present else None

    mask, latent = stacked([c.mask for c in clips]), stacked([c.image_latent for c in clips])
    condition = None
    if mask is not None and latent is not None:
        features = stacked([c.clip_vision for c in clips])
        condition = ImageCondition(mask=mask, latent=latent, clip_vision=features)
    return Batch(
        x0=torch.stack([clip.x0 for clip in clips]).to(device),
        # A caption longer than the encoder's usual width has more tokens than the others: padding is zeros.
        context=pad_sequence([clip.context for clip in clips], batch_first=True).to(device),
        condition=condition,
        known_frames=clips[0].known_frames,
    )
