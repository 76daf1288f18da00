"""Which model a LoRA was made for, as its file says, and whether that is the model at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ..families import Role
from .files import tandem_metadata
from .header import LoraHeader
from .parts import split_key

Fit = Literal["fits", "other generation", "other task", "other size", "other model", "not known"]
LEGAL: tuple[Fit, ...] = ("other generation", "other task", "other size")
"""Made for another model, whose layers have the same shapes."""

# wan/configs of Wan-Video/Wan2.1 (wan_t2v_14B.py, wan_t2v_1_3B.py) and Wan2.2 (wan_ti2v_5B.py), `dim`.
SIZES = {5120: "14B", 3072: "5B", 1536: "1.3B"}
# Generations that have a model of only one width.
GENERATIONS = {3072: "2.2", 1536: "2.1"}
# Channels of the patch embedding: noisy latent; latent, mask and image; the 48 channels of the 5B model's VAE.
TASKS = {16: "t2v", 36: "i2v", 48: "ti2v"}

# The first entry that speaks wins. A file's name says more than what a trainer calls its architecture.
ENTRIES = ("ss_sd_model_name", "ss_base_model_version", "base_model", "modelspec.architecture")
# musubi-tuner writes this for Wan 2.2 too (its sai_model_spec.py, ARCH_WAN), so it says nothing of the generation.
SAYS_NOTHING = {"modelspec.architecture": ("wan2.1/lora", "wan2.1")}

_GENERATION = re.compile(r"wan[ _\-]?v?(2)[._]?([12])(?![0-9])", re.IGNORECASE)
_SIZE = re.compile(r"(?<![0-9.])(14|5|1[._]3)[ _]?b(?![a-z])", re.IGNORECASE)
_TASK = re.compile(r"ti2v|t2v|i2v", re.IGNORECASE)
_QUERY = re.compile(r"blocks[._]0[._](?:self_attn[._]q|attn1[._]to_q)$")
# The axis of a tensor that is as wide as the hidden state.
_WIDTH_AXIS: dict[str, int] = {"down": 1, "up": 0, "weight difference": 0}


class Base(NamedTuple):
    """A Wan model as far as it is known; an empty word is not known."""

    generation: str = ""
    """2.1 or 2.2."""
    size: str = ""
    """14B, 5B or 1.3B."""
    task: str = ""
    """t2v, i2v or ti2v."""
    width: int = 0
    """Of the hidden state: 5120 in the 14B models."""
    source: str = ""
    """Where this is known from."""

    def words(self) -> str:
        """`Wan 2.2 14B i2v (width 5120)`, with what is known."""
        known = " ".join(word for word in (self.generation, self.size, self.task) if word)
        width = f" (width {self.width})" if self.width else ""
        return f"Wan {known}{width}" if known else f"a model of width {self.width}"


class Judgement(NamedTuple):
    """Whether a file's base is the model at hand, and a sentence when there is something to say."""

    fit: Fit
    remark: str = ""


def base_of_file(header: LoraHeader) -> Base:
    """What a LoRA's metadata and the shapes of its tensors say of the model it was made for."""
    generation = size = task = ""
    sources = []
    for entry, text in _claims(header.metadata):
        found = base_in_words(text)
        if (found.generation, found.size, found.task) == ("", "", ""):
            continue
        sources.append(entry)
        generation, size = generation or found.generation, size or found.size
        task = task or found.task
    width = _width_in(header)
    return Base(
        generation or GENERATIONS.get(width, ""),
        SIZES.get(width, "" if width else size),
        task,
        width,
        ", ".join(sources),
    )


def base_in_words(text: str) -> Base:
    """What a name such as `wan2.2_i2v_high_noise_14B_fp16.safetensors` says of a model."""
    generation, size, task = _GENERATION.search(text), _SIZE.search(text), _TASK.search(text)
    return Base(
        f"{generation[1]}.{generation[2]}" if generation else "",
        f"{size[1].replace('_', '.')}B" if size else "",
        task[0].lower() if task else "",
    )


def base_of_network(shapes: Mapping[str, Sequence[int]], role: Role) -> Base:
    """What the parameters of a Wan network say of it; the two-expert family is 2.2's only."""
    width, channels = shapes.get("patch_embedding.weight", (0, 0))[:2]
    task = TASKS.get(channels, "")
    if task == "ti2v" and SIZES.get(width) == "14B":
        task = ""  # Fun-Control's models have as many.
    # Only 2.1's image-to-video models look at the picture through an image encoder.
    looks = "blocks.0.cross_attn.k_img.weight" in shapes
    generation = "2.1" if looks else GENERATIONS.get(width, "")
    if role != "single" or (task == "i2v" and not looks):
        generation = "2.2"
    return Base(generation, SIZES.get(width, ""), task, width, "its parameters")


def judge_base(file: Base, network: Base) -> Judgement:
    """Whether a LoRA made for `file` belongs on `network`, and what to expect when it is another one."""
    if _differ(file.width, network.width) or _differ(file.size, network.size):
        remark = f"it was made for {file.words()}, and this is {network.words()}"
        return Judgement("other model", remark)
    if _differ(file.generation, network.generation):
        return Judgement("other generation", _ACROSS[file.generation])
    if _differ(file.task, network.task) and network.task != "ti2v":
        remark = f"it was made for {file.task}, and this model is {network.task}: legal, its effect may be weaker"
        return Judgement("other task", remark)
    return Judgement("fits" if file.source else "not known")


_ACROSS = {
    "2.1": "a Wan 2.1 LoRA on Wan 2.2, which is legal",
    "2.2": "it was made for one expert of Wan 2.2, and this is Wan 2.1: legal, its effect may be weaker",
}


def _differ(one: object, other: object) -> bool:
    return bool(one) and bool(other) and one != other


def _claims(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    plan = tandem_metadata(metadata).get("plan")
    family = plan.get("family") if isinstance(plan, Mapping) else None
    claims = [("plan", str(family))] if family else []
    for entry in ENTRIES:
        text = metadata.get(entry, "")
        if text and text.lower() not in SAYS_NOTHING.get(entry, ()):
            claims.append((entry, text))
    return claims


def _width_in(header: LoraHeader) -> int:
    """Width of the hidden state, from the first block's query layer in any spelling; 0 when it is not told."""
    for key, info in header.tensors.items():
        stem, part = split_key(key)
        if part in _WIDTH_AXIS and len(info.shape) == 2 and _QUERY.search(stem):
            return info.shape[_WIDTH_AXIS[part]]
    return 0
