"""Clips and captions through the graph's own VAE and text encoder, into the cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...training.cache.latent_cache import EntryReader, LatentCache
from ...training.cache.progress import EncodingProgress
from ...training.data.dataset import Clip
from ...training.data.facts import digest_of
from ...training.events import Finding, Listener
from ...training.samples import CachedSamples, ClipKeys, ViewKeys
from ...training.turns import Turns, in_turn
from ...wan.conditions import start_frame_mask, start_frame_video
from ...wan.errors import UserError
from ...wan.shapes import LatentSize
from ...wan.video import View, read_clip
from .cache_keys import TextNames, ViewNames

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from .setup import Setup

logger = logging.getLogger("tandem.training")
PRECISION = {
    "VAE": "Load another file of the VAE, or start ComfyUI with --fp32-vae.",
    "text encoder": "Load another file of the text encoder, or start ComfyUI with --fp32-text-enc.",
}


@contextmanager
def encoded_dataset(
    setup: Setup, cache: LatentCache, *, turns: Turns | None = None, listen: Listener | None = None
) -> Iterator[CachedSamples]:
    """Every clip as normalised latents, first-frame conditioning and text embedding, in the cache.

    What is there already is not made again. The rest is made in the host's inference mode, a view of a clip at a
    time, in our `turns`. While the block lasts nobody takes the entries out of the cache; what is read from it are
    normal tensors, on the CPU.
    """
    turns = turns or Turns()
    with torch.inference_mode():
        wanted, empty = _wanted(setup, turns)
    with cache.use(_all_keys(wanted, empty)):
        progress = EncodingProgress(len(wanted), listen)
        filling = _Filling(setup, cache, turns, progress)
        with torch.inference_mode():
            filling.fill(wanted)
            if empty is not None:
                in_turn(turns, partial(text_context, setup.clip, "", cache, key=empty))
        logger.info(progress.summary())
        if listen:
            listen(Finding(step=0, kind="note", text=progress.summary()))
        clips = [
            ClipKeys(
                name=item.clip.name,
                shape=filling.shapes[item.views[0].latent],
                text=item.text,
                views=item.views,
                repeats=item.clip.repeats,
                known_frames=_known_frames(setup, filling.shapes[item.views[0].latent]),
            )
            for item in wanted
        ]
        yield CachedSamples(clips, EntryReader(cache), empty_text=empty)


def encode_text(clip: CLIP, text: str) -> torch.Tensor:
    """(tokens, width) embedding, as the host's own prompt node makes it. Raises `UserError` if it is not finite."""
    context = _normal(clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0])[0]
    return _finite(context, _about_text(text), "text encoder")


def text_context(
    clip: CLIP, text: str, cache: LatentCache, *, key: str | None = None
) -> torch.Tensor:
    """The same from the cache, where it is put if it is not there."""
    key = key or TextNames(clip)(text)
    known = cache.verified(key)
    if known is None:
        known = encode_text(clip, text)
        cache.write(key, known, _about_text(text))
    return known


def require_text_width(context: torch.Tensor, width: int) -> None:
    """The text encoder belongs to the model."""
    if context.shape[-1] != width:
        raise UserError(
            f"The text encoder gives embeddings of width {context.shape[-1]}.",
            f"This model takes width {width}.",
            "Load the umt5 file that belongs to the model.",
        )


def image_condition(
    pixels: torch.Tensor, vae: VAE, model: ModelPatcher
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask (4, frames, height, width) and image latent of an I2V network for (frames, h, w, 3) pixels."""
    # The VAE gives the mode of its distribution, never a sample: equal clips have equal conditions.
    video = start_frame_video(pixels[0], pixels.shape[0])
    latent = _encoded(video, vae, model)
    return start_frame_mask(LatentSize(*latent.shape[-3:]))[0], latent


def _known_frames(setup: Setup, latent: tuple[int, ...]) -> int:
    """Latent frames that are given clean; a picture is learnt whole, from its caption alone."""
    return 1 if setup.clean_start and latent[1] > 1 else 0


class _Wanted(NamedTuple):
    """A clip, and where what the network sees of it lies in the cache."""

    clip: Clip
    text: str
    views: tuple[ViewKeys, ...]


def _wanted(setup: Setup, turns: Turns) -> tuple[list[_Wanted], str | None]:
    """Every clip of the dataset; and the key of the empty text, where the plan takes captions away."""
    # Weights are read for the keys: nobody else may move them meanwhile.
    names, texts = in_turn(turns, lambda: (ViewNames(setup), TextNames(setup.clip)))
    known: dict[str, str] = {}
    wanted = []
    for clip in setup.dataset.clips:
        if clip.caption not in known:
            known[clip.caption] = in_turn(turns, partial(texts, clip.caption))
        views = tuple(names(clip, view) for view in clip.views)
        wanted.append(_Wanted(clip, known[clip.caption], views))
    return wanted, in_turn(turns, partial(texts, "")) if setup.plan.caption_dropout else None


def _all_keys(wanted: Sequence[_Wanted], empty: str | None) -> set[str]:
    keys = {key for item in wanted for view in item.views for key in (*view, item.text)}
    return {key for key in (*keys, empty) if key is not None}


_LackingView = tuple[View, ViewKeys]


class _Filling:
    """Looks for everything in the cache, then makes what is missing."""

    def __init__(
        self, setup: Setup, cache: LatentCache, turns: Turns, progress: EncodingProgress
    ) -> None:
        self._setup, self._cache, self._turns, self._progress = setup, cache, turns, progress
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of each latent, by its key."""
        self._have: set[str] = set()
        self._read: tuple[object, torch.Tensor] | None = None
        """What was decoded last, and of which part of which file."""
        self._digests: dict[tuple[Path, int, int], str] = {}
        """Of files as they are now: by path, size and time of change."""

    def fill(self, wanted: Sequence[_Wanted]) -> None:
        missing = [(item, lacking) for item in wanted if (lacking := self._looked_for(item))]
        for item, lacking in missing:
            seconds = sum(self._made(item, view, keys) for view, keys in lacking)
            self._read = None
            self._progress.made(item.clip.name, self._work(item.clip, lacking), seconds)

    def _looked_for(self, item: _Wanted) -> list[_LackingView]:
        """The views that are not whole in the cache, those of one cut beside each other."""
        pairs = zip(item.clip.views, item.views, strict=True)
        lacking = [
            (view, keys)
            for view, keys in pairs
            if not in_turn(self._turns, partial(self._found, item, keys))
        ]
        if lacking:
            self._progress.missing(self._work(item.clip, lacking))
        else:
            self._progress.found(item.clip.name)
        return sorted(lacking, key=lambda pair: pair[0])

    def _work(self, clip: Clip, lacking: Sequence[_LackingView]) -> float:
        return len(lacking) * prod(self._setup.dataset.clip_size(clip))

    def _made(self, item: _Wanted, view: View, keys: ViewKeys) -> float:
        """Seconds that a view of a clip took."""
        began = time.monotonic()
        pixels = self._pixels(item.clip, view) if self._lacks(*keys) else None
        reading = time.monotonic() - began
        return reading + in_turn(self._turns, partial(self._make, item, keys, pixels))

    def _lacks(self, *keys: str | None) -> bool:
        return any(key is not None and key not in self._have for key in keys)

    def _found(self, item: _Wanted, keys: ViewKeys) -> bool:
        for key in (*keys, item.text):
            if key is None or key in self._have:
                continue
            tensor = self._cache.verified(key)
            if tensor is not None:
                self._note(key, tensor)
        return not self._lacks(*keys, item.text)

    def _note(self, key: str, tensor: torch.Tensor) -> None:
        self._have.add(key)
        self.shapes[key] = tuple(tensor.shape)

    def _pixels(self, clip: Clip, view: View) -> torch.Tensor:
        """A mirrored view is the mirror of its pair: the file is decoded once for both."""
        self._require_unchanged(clip)
        dataset = self._setup.dataset
        size, fps = dataset.clip_size(clip), dataset.clip_fps(clip)
        part = (clip.path, clip.digest, size, fps, clip.start, view.crop)
        if self._read is not None and self._read[0] == part and view.flip:
            pixels, self._read = self._read[1].flip(2), None
            return pixels
        pixels = read_clip(clip.path, size, fps=fps, start=clip.start, view=view)
        self._read = None if view.flip else (part, pixels)
        return pixels

    def _require_unchanged(self, clip: Clip) -> None:
        try:
            stat = clip.path.stat()
        except OSError as error:
            raise UserError(
                f"{clip.path.name} cannot be read any more ({error.strerror}).",
                f"A run reads its clips when it begins, from {clip.path.parent}.",
                "Put them back where they were and queue the workflow again.",
            ) from error
        now = (clip.path, stat.st_size, stat.st_mtime_ns)
        if now not in self._digests:
            self._digests[now] = digest_of(clip.path, None)
        if self._digests[now] != clip.digest:
            raise UserError(
                f"{clip.path.name} has changed since the dataset was read.",
                "A run trains on the clips that its dataset was made of.",
                "Queue the workflow again: the folder is read anew.",
            )

    def _make(self, item: _Wanted, keys: ViewKeys, pixels: torch.Tensor | None) -> float:
        """Encodes and stores what is missing; returns the seconds it took."""
        began, setup = time.monotonic(), self._setup
        if pixels is not None:
            where = f"{item.clip.name}, {' x '.join(map(str, setup.dataset.clip_size(item.clip)))}"
            made = {"latent": _latent, "condition": _condition, "vision": _image_features}
            for (name, make), key in zip(made.items(), keys, strict=True):
                about = f"{name} of {where}"
                self._put(key, partial(make, setup, pixels, about), about)
        caption = item.clip.caption
        self._put(item.text, partial(encode_text, setup.clip, caption), _about_text(caption))
        return time.monotonic() - began

    def _put(self, key: str | None, make: Callable[[], torch.Tensor], about: str) -> None:
        if key is not None and key not in self._have:
            tensor = make()
            self._cache.write(key, tensor, about)
            self._note(key, tensor)


def _about_text(text: str) -> str:
    return f"text: {text}"


def _latent(setup: Setup, pixels: torch.Tensor, about: str) -> torch.Tensor:
    return _finite(_encoded(pixels, setup.vae, setup.any_model), about, "VAE")


def _condition(setup: Setup, pixels: torch.Tensor, about: str) -> torch.Tensor:
    return _finite(image_condition(pixels, setup.vae, setup.any_model)[1], about, "VAE")


def _image_features(setup: Setup, pixels: torch.Tensor, about: str) -> torch.Tensor:
    assert setup.clip_vision is not None
    features = setup.clip_vision.encode_image(pixels[:1]).penultimate_hidden_states
    return _finite(_normal(features)[0], about, "CLIP vision")


def _finite(tensor: torch.Tensor, about: str, maker: str) -> torch.Tensor:
    if not tensor.isfinite().all():
        raise UserError(
            f"{about}: the {maker} gave values that are not finite (NaN or infinity).",
            "They come from a damaged file, or from numbers too large for half precision.",
            PRECISION.get(maker, f"Load another file of the {maker}."),
        )
    return tensor


def _encoded(pixels: torch.Tensor, vae: VAE, model: ModelPatcher) -> torch.Tensor:
    # Raw latents at sockets, normalised ones inside: what the network was trained on.
    return _normal(model.model.process_latent_in(vae.encode(pixels)))[0]


def _normal(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(False):
        return tensor.float().cpu().clone()
