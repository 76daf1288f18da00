"""LoRA files on disk: read whatever their layout; written as safetensors, beside and renamed, with metadata."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file

from ..errors import UserError
from .adapters import AdapterSet
from .header import LoraHeader, broken, header_of, missing, read_header
from .pickles import SUFFIXES as PICKLES
from .pickles import read_pickle
from .recognise import require_lora
from .settings import adapter_settings

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


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as it lies on disk."""

    header: LoraHeader
    tensors: Mapping[str, torch.Tensor]

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's own; empty for a PyTorch file, which has none."""
        return self.header.metadata


def read_lora(path: Path) -> LoraFile:
    """A LoRA file, its tensors on the CPU.

    Raises `UserError` when it is missing, cut off, no file of tensors, or holds no LoRA.
    """
    header = lora_header(path)
    require_lora(header, path.name)
    return LoraFile(header, read_tensors(path))


def lora_header(path: Path) -> LoraHeader:
    """Names, shapes, dtypes and metadata of a LoRA file; of a safetensors file no weight is read."""
    if _is_pickle(path):
        return header_of(read_pickle(path, mapped=True), adapter_settings({}, path))
    _require_safetensors(path, "LoRA")
    return read_header(path)


def read_metadata(path: Path, what: str = "LoRA") -> dict[str, str]:
    """The file's metadata, from its header alone; `what` it should be, for the error."""
    if what == "LoRA" and _is_pickle(path):
        if not path.is_file():
            raise missing(path)
        return {}
    _require_safetensors(path, what)
    return dict(read_header(path, what).metadata)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file, on the CPU."""
    if _is_pickle(path):
        return read_pickle(path)
    _require_safetensors(path, "LoRA")
    read_header(path)
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise broken(path, str(error)) from error


def tandem_metadata(metadata: Mapping[str, str]) -> dict[str, object]:
    """The `tandem` entry that our trainer writes, or an empty dict for a LoRA from elsewhere."""
    try:
        entry = json.loads(metadata.get("tandem", "{}"))
    except json.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _is_pickle(path: Path) -> bool:
    return path.suffix.lower() in PICKLES


def _require_safetensors(path: Path, what: str) -> None:
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise UserError(
            f"{path.name} is a {path.suffix or 'nameless'} file.",
            f"A {what} is read from a .safetensors file, which cannot carry code.",
            "Convert it to safetensors with the program that wrote it.",
        )
