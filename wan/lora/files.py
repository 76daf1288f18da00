"""LoRA files on disk: safetensors, written beside and renamed, with metadata that says what they are."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file

from ..errors import UserError
from .adapters import AdapterSet

KEY_PREFIX = "diffusion_model."
"""What ComfyUI, diffusers, ai-toolkit and diffusion-pipe all read for Wan."""


def adapter_tensors(adapters: AdapterSet) -> dict[str, torch.Tensor]:
    """The adapters under the keys of a LoRA file; `.alpha` stands beside `lora_A`, as readers expect."""
    tensors = {}
    for layer, adapter in adapters.items():
        tensors[f"{KEY_PREFIX}{layer}.lora_A.weight"] = adapter.down.detach().cpu().contiguous()
        tensors[f"{KEY_PREFIX}{layer}.lora_B.weight"] = adapter.up.detach().cpu().contiguous()
        tensors[f"{KEY_PREFIX}{layer}.alpha"] = torch.tensor(adapter.alpha)
    return tensors


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes beside `path`, then renames: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        save_file(dict(tensors), beside, metadata=dict(metadata))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_metadata(path: Path, what: str = "LoRA") -> dict[str, str]:
    """The file's metadata, from its header alone; `what` it should be, for the error."""
    with _opened(path, what) as file:
        return dict(file.metadata() or {})


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file, on the CPU."""
    with _opened(path, "LoRA"):
        return load_file(path)


def tandem_metadata(metadata: Mapping[str, str]) -> dict[str, object]:
    """The `tandem` entry that our trainer writes, or an empty dict for a LoRA from elsewhere."""
    try:
        entry = json.loads(metadata.get("tandem", "{}"))
    except json.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _opened(path: Path, what: str) -> safetensors.safe_open:
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise UserError(
            f"{path.name} is a {path.suffix or 'nameless'} file.",
            f"A {what} is read from a .safetensors file, which cannot carry code.",
            "Convert it to safetensors with the program that wrote it.",
        )
    try:
        return safetensors.safe_open(path, framework="pt")
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there.",
            f"A {what} is a file in a folder of models.",
            "Check the name, or copy the file there.",
        ) from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path.name} cannot be read as safetensors ({error}).",
            "A whole safetensors file has a header and all the bytes that the header names.",
            "The file is truncated or not a safetensors file: download or copy it again.",
        ) from error
