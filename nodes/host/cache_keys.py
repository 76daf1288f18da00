"""Names in the cache for what the host's models make of clips and captions: digests of all that counts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from comfy.text_encoders.wan import WanT5Tokenizer

from ...training.cache.files import entry_key
from ...training.data.dataset import Clip
from ...training.samples import ViewKeys
from ...wan.video import View
from . import wan_models
from .weight_digests import token_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

    from .setup import Setup


class ViewNames:
    """Keys of the views of a setup's clips. Reads the models' weights once."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._vae = wan_models.whole_digest(setup.vae.patcher)
        self._latents = _latent_digest(setup.any_model)
        vision = setup.clip_vision
        self._vision = wan_models.whole_digest(vision.patcher) if vision else None

    def __call__(self, clip: Clip, view: View) -> ViewKeys:
        """What the setup's model takes of this view."""
        width, height, frames = self._setup.dataset.clip_size(clip)
        picture = {
            "clip": clip.digest,
            "start": clip.start,
            "fps": float(self._setup.dataset.clip_fps(clip)),
            "width": width,
            "height": height,
            "crop": float(view.crop),
            "flip": bool(view.flip),
        }
        film = {**picture, "frames": frames, "vae": self._vae, "latents": self._latents}
        latent = entry_key("latent", film)
        if self._setup.task == "t2v":
            return ViewKeys(latent)
        vision = None
        if self._vision is not None:
            vision = entry_key("vision", {**picture, "encoder": self._vision})
        return ViewKeys(latent, entry_key("condition", film), vision)


class TextNames:
    """Keys of the embeddings of texts. Reads the encoder's weights once.

    A key holds the tokens instead of the text, so another tokenizer gives another key.
    """

    def __init__(self, clip: CLIP) -> None:
        self._clip = clip
        self._encoder = wan_models.whole_digest(clip.patcher)

    def __call__(self, text: str) -> str:
        hooks = self._clip.patcher.forced_hooks
        return entry_key(
            "text",
            {
                "encoder": self._encoder,
                "layer": self._clip.layer_idx,
                "tokens": _plain(self._clip.tokenize(text)),
                # Not all that hooks do can be read off them: their embeddings serve this process only.
                "hooks": [] if hooks is None else [*_hook_facts(self._clip), token_of(hooks)],
            },
        )


def text_encoder_digest(clip: CLIP, texts: Sequence[str]) -> str:
    """What makes a run's text encoder: its weights, and how it is told to use them where that is not as usual.

    `texts` stand for all that its tokenizer does with texts. The same after a restart of the host.
    """
    weights = wan_models.patched_digest(clip.patcher)
    usual = type(clip.tokenizer) is WanT5Tokenizer and not clip.tokenizer_options
    if usual and clip.layer_idx is None and clip.patcher.forced_hooks is None:
        return weights
    tokenizer = type(clip.tokenizer)
    facts = {
        "weights": weights,
        "layer": clip.layer_idx,
        "tokenizer": f"{tokenizer.__module__}.{tokenizer.__qualname__}",
        "options": _plain(clip.tokenizer_options),
        "tokens": [_plain(clip.tokenize(text)) for text in texts],
        "hooks": _hook_facts(clip),
    }
    return entry_key("text encoder", facts)[:32]


def _hook_facts(clip: CLIP) -> list[Any]:
    """What the host's own hooks do to the encoder: their kinds, strengths, times, and patches."""
    hooks = clip.patcher.forced_hooks
    facts: list[Any] = [bool(clip.use_clip_schedule)] if hooks else []
    for hook in hooks.hooks if hooks else ():
        times = [[float(k.strength), float(k.start_percent)] for k in hook.hook_keyframe.keyframes]
        patches = wan_models.patches_digest(clip.patcher.hook_patches.get(hook.hook_ref, {}))
        strength = getattr(hook, "_strength_clip", None)
        facts.append([type(hook).__qualname__, strength, times, patches])
    return facts


def _latent_digest(model: ModelPatcher) -> str:
    """What the model's latent format does to two latents: it is a scale and an offset for each channel."""
    ones = torch.ones(1, model.model.latent_format.latent_channels, 1, 1, 1)
    digest = hashlib.sha256()
    for probe in (0 * ones, ones):
        digest.update(model.model.process_latent_in(probe).float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _plain(tokens: Any) -> Any:  # noqa: ANN401 - what a tokenizer gives: lists of tuples of numbers, and tensors
    """Tokens as JSON can hold them; embeddings among them as digests."""
    if isinstance(tokens, torch.Tensor):
        return hashlib.sha256(tokens.detach().float().cpu().numpy().tobytes()).hexdigest()
    if isinstance(tokens, dict):
        return [[str(name), _plain(value)] for name, value in sorted(tokens.items())]
    if isinstance(tokens, (list, tuple)):
        return [_plain(token) for token in tokens]
    return tokens if isinstance(tokens, (int, float, str, type(None))) else str(tokens)
