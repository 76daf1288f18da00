"""Every name that a LoRA file may give a layer of a Wan network. The rules are data.

Nothing is guessed: a name counts when, rewritten by these tables, it is a name that the network has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

# Words before the network's own names. Who writes which: trainers of the ComfyUI family and whole checkpoints
# (model.diffusion_model), PEFT (base_model.model), diffusers (transformer, transformer_2), ai-toolkit (transformer_1,
# transformer_2), DiffSynth (pipe.dit, pipe.dit2).
WRAPPERS = frozenset(
    (
        "model",
        "diffusion_model",
        "base_model",
        "transformer",
        "transformer_1",
        "transformer_2",
        "pipe",
        "dit",
        "dit2",
    )
)
# Words that torch.compile, FSDP, checkpointing and DDP leave anywhere in a name.
LEAKS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"))
# Before names whose dots are underscores: VideoX-Fun, kohya and musubi, LyCORIS, OneTrainer.
FLAT_PREFIXES = ("lora_unet__", "lora_unet_", "lycoris_", "lora_transformer_")
FLAT_WRAPPERS = ("model_", "diffusion_model_", "transformer_")

# Wan's name and diffusers' name (diffusers: scripts/convert_wan_to_diffusers.py), inside a block.
BLOCK_NAMES: tuple[tuple[str, str], ...] = (
    ("self_attn.q", "attn1.to_q"),
    ("self_attn.k", "attn1.to_k"),
    ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"),
    ("self_attn.o", "attn1.to_out"),
    ("self_attn.norm_q", "attn1.norm_q"),
    ("self_attn.norm_k", "attn1.norm_k"),
    ("cross_attn.q", "attn2.to_q"),
    ("cross_attn.k", "attn2.to_k"),
    ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("cross_attn.o", "attn2.to_out"),
    ("cross_attn.norm_q", "attn2.norm_q"),
    ("cross_attn.norm_k", "attn2.norm_k"),
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    ("cross_attn.norm_k_img", "attn2.norm_added_k"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("norm3", "norm2"),
    ("modulation", "scale_shift_table"),
    ("before_proj", "proj_in"),
    ("after_proj", "proj_out"),
)
# The same outside of the blocks.
OUTER_NAMES: tuple[tuple[str, str], ...] = (
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
    ("head.modulation", "scale_shift_table"),
    ("head.head", "proj_out"),
)
# Layers of Wan 2.1's image encoder, in both spellings, flat or not. 2.2 has none of them, so a LoRA of a 2.1
# image-to-video model misses them there, and works.
IMAGE_ENCODER = (
    "k_img",
    "v_img",
    "img_emb",
    "add_k_proj",
    "add_v_proj",
    "norm_added_k",
    "image_embedder",
)

_ENDING = re.compile(r"\.(?:weight|bias)$")
_BLOCK = re.compile(r"((?:\w+_)?blocks\.\d+\.)(.+)")


class Named(NamedTuple):
    """What a name in a file says."""

    path: str | None
    """The layer, or the parameter that is no layer's, under Wan's own name; None: the network has it not."""
    prefix: str
    """What stands before the network's own names."""
    diffusers: bool
    """Whether the name is diffusers' and not Wan's."""


class NetworkNames:
    """The layers and parameters of one network under all of their names."""

    def __init__(self, parameters: Iterable[str]) -> None:
        layers = dict.fromkeys(_ENDING.sub("", name) for name in parameters)
        # A modulation belongs to a block or to the head, which `diff_m` names instead of it.
        owners = [
            name.removesuffix(".modulation") for name in layers if name.endswith(".modulation")
        ]
        layers |= dict.fromkeys(owners)
        self._paths = dict(zip(layers, layers, strict=True))
        for layer in layers:
            for theirs in _diffusers_names(layer):
                self._paths.setdefault(theirs, layer)
        # Wan's own spelling stands first, and wins where two flat names are equal.
        self._flat = {name.replace(".", "_"): name for name in reversed(self._paths)}
        self.has_image_encoder = any(is_of_image_encoder(layer) for layer in layers)

    def find(self, stem: str) -> Named:
        """What `stem`, a key without the name of its factor, means on this network."""
        if "." not in stem:
            flat = stem.replace("_orig_mod_", "")
            for prefix in FLAT_PREFIXES:
                if flat.startswith(prefix):
                    return self._find_flat(prefix, flat.removeprefix(prefix))
        words = stem.split(".")
        start = next(
            (i for i, word in enumerate(words) if word not in WRAPPERS and word not in LEAKS),
            len(words),
        )
        name = ".".join(word for word in words[start:] if word not in LEAKS)
        prefix = "".join(f"{word}." for word in words[:start])
        return self._named(prefix, name)

    def _find_flat(self, prefix: str, flat: str) -> Named:
        while flat not in self._flat:
            wrapper = next((w for w in FLAT_WRAPPERS if flat.startswith(w)), None)
            if wrapper is None:
                return Named(None, prefix, False)
            prefix, flat = prefix + wrapper, flat.removeprefix(wrapper)
        return self._named(prefix, self._flat[flat])

    def _named(self, prefix: str, name: str) -> Named:
        # A few files say `.weight` or `.bias` before the factor's name.
        ending = _ENDING.search(name)
        layer = self._paths.get(name[: ending.start()] if ending else name)
        if layer is None:
            return Named(None, prefix, False)
        path = layer + ending[0] if ending else layer
        return Named(path, prefix, path != name)


@lru_cache(maxsize=8)
def network_names(parameters: tuple[str, ...]) -> NetworkNames:
    """The names of a network; kept, because every file of a stack is held against the same few networks."""
    return NetworkNames(parameters)


def is_of_image_encoder(name: str) -> bool:
    """Whether a name, in any spelling, is of a layer that only Wan 2.1's image encoder needs."""
    return any(word in name for word in IMAGE_ENCODER)


def _diffusers_names(name: str) -> list[str]:
    inside = _BLOCK.fullmatch(name)
    block, rest = inside.groups() if inside else ("", name)
    names = BLOCK_NAMES if block else OUTER_NAMES
    return [block + theirs for ours, theirs in names if ours == rest]
