"""What a MODEL socket holds: is it Wan, which layers has it, is it the model it should be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary

import torch
from comfy.ldm.wan.model import WanModel
from comfy.ldm.wan.vae import WanVAE
from comfy.ldm.wan.vae2_2 import WanVAE as WanVAE22
from comfy.model_base import WAN22
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...wan.errors import UserError
from ...wan.expert import LinearShape
from ...wan.families import Role, Task, task_of
from .injection import KEY, applied_tensors
from .radial_patch import radial_facts
from .weight_digests import patch_facts, whole_tensors_digest

SAMPLED_VALUES = 16
"""Values of each tensor that go into a digest."""
_whole_digests: WeakKeyDictionary[nn.Module, dict[tuple[str, str], str]] = WeakKeyDictionary()


def require_wan(model: ModelPatcher, socket: str) -> WanModel:
    """The network inside a MODEL, or an error that says what the MODEL is."""
    network = getattr(model.model, "diffusion_model", None)
    if not isinstance(network, WanModel):
        raise UserError(
            f"{socket} is a {type(model.model).__name__} model.",
            "It takes a Wan 2.1 or 2.2 video model.",
            "Load a wan file with Load Diffusion Model and connect it here.",
        )
    return network


def require_pair(models: Mapping[Role, ModelPatcher]) -> None:
    """Two experts have equal shapes and are not one model twice."""
    if len(models) < 2:
        return
    high, low = models["high_noise"], models["low_noise"]
    ours, theirs = (
        _shapes(require_wan(m, s)) for m, s in ((high, "model_high"), (low, "model_low"))
    )
    if ours != theirs:
        name = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise UserError(
            f"model_high and model_low differ in shape: {name} is {ours.get(name)} in one, {theirs.get(name)} in "
            "the other.",
            "The two experts of Wan 2.2 A14B have equal shapes.",
            "Load the high-noise and the low-noise file of one and the same model.",
        )
    if high.model is low.model or model_digest(high) == model_digest(low):
        raise UserError(
            "model_high and model_low hold the same weights.",
            "The two experts of Wan 2.2 are two files, *_high_noise_* and *_low_noise_*.",
            "Load the other expert's file, or leave model_low empty to treat it as a single model.",
        )


def require_still_weights(models: Mapping[Role, ModelPatcher]) -> None:
    """Gradients need weights that stay where they are between forward and backward pass."""
    if any(model.is_dynamic() for model in models.values()):
        raise UserError(
            "ComfyUI streams these models with dynamic VRAM, its default on NVIDIA cards.",
            "Training needs weights that stay in place: a streamed layer's buffer is overwritten before "
            "its gradient is computed.",
            "Start ComfyUI with --disable-dynamic-vram.",
        )


def require_whole(patcher: ModelPatcher) -> None:
    """The host put all of the weights on the device; with --novram it would stream them whatever is asked."""
    if getattr(patcher.model, "model_lowvram", False):
        raise UserError(
            "ComfyUI keeps part of the model off its device.",
            "Training needs the expert whole where it computes: gradients through streamed layers are wrong.",
            "Start ComfyUI without --novram or --lowvram, or use a smaller (fp8) file.",
        )


def require_trainable(model: ModelPatcher, socket: str) -> None:
    """A plain Wan transformer: its variants take inputs that the trainer does not make."""
    network = require_wan(model, socket)
    latent = model.model.latent_format.latent_channels
    inputs = network.patch_embedding.weight.shape[1]
    if type(network) is not WanModel or inputs not in (latent, 2 * latent + 4):
        raise UserError(
            f"{socket} is a {type(network).__name__} with {inputs} input channels.",
            f"Training takes plain Wan models: text-to-video ({latent} channels) or image-to-video "
            f"({2 * latent + 4}). VACE, Fun, Camera, S2V, Animate and other variants are not supported yet.",
            "Train on the plain model; the LoRA can be tried on a variant afterwards.",
        )


def require_vae(vae: object, model: ModelPatcher) -> None:
    """The VAE belongs to the model: 2.1's 16 channels, or 2.2's 48 for the 5B model."""
    channels = model.model.latent_format.latent_channels
    network = getattr(vae, "first_stage_model", None)
    fitting = {16: WanVAE, 48: WanVAE22}.get(channels)
    if fitting is None or not isinstance(network, fitting):
        raise UserError(
            f"The VAE is a {type(network).__name__} with {getattr(vae, 'latent_channels', '?')} latent channels.",
            f"This model has {channels} latent channels: it takes the Wan {'2.2' if channels == 48 else '2.1'} VAE.",
            f"Load {'wan2.2_vae' if channels == 48 else 'wan_2.1_vae'}.safetensors with Load VAE.",
        )


def takes_clip_vision(model: ModelPatcher) -> bool:
    """Wan 2.1's image-to-video models look at the first frame through an image encoder as well."""
    return require_wan(model, "model").img_emb is not None


def require_clip_vision(clip_vision: object, model: ModelPatcher) -> None:
    """Training without the image features that sampling has would train another model."""
    if takes_clip_vision(model) and clip_vision is None:
        raise UserError(
            "clip_vision is not connected.",
            "This is a Wan 2.1 image-to-video model, which takes image features of the first frame.",
            "Load clip_vision_h with Load CLIP Vision and connect it.",
        )


def model_task(model: ModelPatcher) -> Task:
    """Image-to-video when the network has input channels for mask and image."""
    network = require_wan(model, "model")
    return task_of(
        network.patch_embedding.weight.shape[1], model.model.latent_format.latent_channels
    )


def takes_clean_frames(model: ModelPatcher) -> bool:
    """Wan 2.2 5B makes videos from text and from a start frame: it has no channels for the frame, which is given clean
    in the latent itself (the host's Wan22ImageToVideoLatent)."""
    return isinstance(model.model, WAN22)


def text_width(model: ModelPatcher) -> int:
    """Width of the text embedding the network takes."""
    return require_wan(model, "model").text_embedding[0].in_features


def linear_layers(network: nn.Module) -> dict[str, LinearShape]:
    """Every linear layer by name. Quantised ones are not `nn.Linear`, and their stored shape is packed."""
    layers = {}
    for name, module in network.named_modules():
        inputs, outputs = (
            getattr(module, "in_features", None),
            getattr(module, "out_features", None),
        )
        if isinstance(inputs, int) and isinstance(outputs, int):
            layers[name] = LinearShape(inputs, outputs)
    return layers


def model_digest(model: ModelPatcher) -> str:
    """Names, shapes, dtypes and a fixed sample of a MODEL's own weights, and of all that is patched onto it.

    The same wherever the weights lie, and whichever clone has merged its patches into them.
    """
    tensors, facts = _patched_tensors(model, model.model.diffusion_model, "diffusion_model.")
    others = ",".join(sorted(set(model.injections) - {KEY}))
    return tensors_digest(tensors | applied_tensors(model), others + facts + radial_facts(model))


def patched_digest(patcher: ModelPatcher) -> str:
    """The same for a VAE or an encoder; equal to `module_digest` when nothing is patched onto it."""
    return tensors_digest(*_patched_tensors(patcher, patcher.model, ""))


def patches_digest(patches: Mapping[str, Iterable[object]]) -> str:
    """The same for patches alone."""
    return tensors_digest(*patch_facts(patches))


def whole_digest(patcher: ModelPatcher) -> str:
    """64 hex digits of every value of a VAE's or an encoder's weights, and of all that is patched onto it.

    Reads gigabytes, so it is remembered for a loaded model as long as a sample of its weights stays the same.
    """
    known = _whole_digests.setdefault(patcher.model, {})
    # The sample does not tell two patches apart for sure; the host gives every change of them another id.
    now = (str(patcher.patches_uuid) if patcher.patches else "", patched_digest(patcher))
    if now not in known:
        known[now] = whole_tensors_digest(*_patched_tensors(patcher, patcher.model, ""))
    return known[now]


def _patched_tensors(
    patcher: ModelPatcher, module: nn.Module, prefix: str
) -> tuple[dict[str, torch.Tensor], str]:
    """Tensors by name, and what the patches are besides tensors."""
    backup = {key: entry.weight for key, entry in patcher.backup.items()}
    tensors = {n: backup.get(f"{prefix}{n}", weight) for n, weight in module.named_parameters()}
    inside, facts = patch_facts(patcher.patches)
    return tensors | inside, facts


def module_digest(module: nn.Module) -> str:
    """The same for a VAE or a text encoder."""
    return tensors_digest(dict(module.named_parameters()))


def tensors_digest(tensors: Mapping[str, torch.Tensor], more: str = "") -> str:
    """32 hex digits; equal for equal tensors, whatever file they came from and wherever they lie."""
    digest = hashlib.sha256(more.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # Quantised tensors give their stored numbers: computing values from them depends on the device.
        stored = getattr(tensor, "_qdata", None)
        flat = (tensor if stored is None else stored).detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLED_VALUES)
        sample = flat[::step][:SAMPLED_VALUES].cpu().contiguous()
        digest.update(bytes(sample.view(torch.uint8).tolist()))
        digest.update(_scale(tensor))
    return digest.hexdigest()[:32]


def _scale(tensor: torch.Tensor) -> bytes:
    scale = getattr(getattr(tensor, "_params", None), "scale", None)
    return (
        b""
        if scale is None
        else str(torch.as_tensor(scale).float().reshape(-1)[:SAMPLED_VALUES].tolist()).encode()
    )


def _shapes(network: WanModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in network.named_parameters()}
