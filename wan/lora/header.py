"""What a LoRA file says before any of its weights is read: names, shapes, dtypes, metadata."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import UserError
from .settings import NO_SETTINGS, AdapterSettings, adapter_settings

LONGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit. A LoRA's header has some 200,000."""
# safetensors' words for what a LoRA can be stored in.
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# What alpha can be stored in besides: musubi-tuner's converter writes it as a whole number.
INTEGERS = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_NUMBERS = FLOATS | INTEGERS
_WORDS = {dtype: word for word, dtype in _NUMBERS.items()}
_SIZES = {word: dtype.itemsize for word, dtype in _NUMBERS.items()}
_UNPACK = {"F64": "<d", "F32": "<f", "F16": "<e"}
_UNPACK |= {"I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}


class TensorInfo(NamedTuple):
    """One tensor of a file."""

    dtype: str
    """safetensors' word: F32, BF16, I8, ..."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LoraHeader:
    """What is known of a file without its weights."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    """The value of each `.alpha`, which is one number, by its key."""
    settings: AdapterSettings = NO_SETTINGS
    """What a file without `.alpha` says of alpha elsewhere."""


def header_of(
    tensors: Mapping[str, torch.Tensor], settings: AdapterSettings = NO_SETTINGS
) -> LoraHeader:
    """The header that a file of these tensors has."""
    infos = {
        key: TensorInfo(_WORDS.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for key, tensor in tensors.items()
    }
    alphas = {
        key: float(tensor)
        for key, tensor in tensors.items()
        if key.endswith(".alpha") and tensor.dtype in _WORDS and tensor.numel() == 1
    }
    return LoraHeader(infos, alphas=alphas, settings=settings)


def read_header(path: Path, what: str = "LoRA") -> LoraHeader:
    """The header of a safetensors file, checked against the length of the file; `what` it is, for the error.

    Raises `UserError` when the file is missing, cut off or no safetensors file.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _header(path, content)
    except FileNotFoundError:
        raise missing(path, what) from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        # An empty file cannot be mapped.
        raise broken(path, str(error)) from error
    except OSError as error:
        raise broken(path, error.strerror or "it cannot be opened") from error


def missing(path: Path, what: str = "LoRA") -> UserError:
    """The file is not there."""
    return UserError(
        f"{path} is not there.",
        f"A {what} is a file in a folder of models.",
        "Check the name, or copy the file there.",
    )


def _header(path: Path, content: mmap.mmap) -> LoraHeader:
    size = len(content)
    if size < 8:
        raise broken(path, f"it has {size} bytes")
    length = struct.unpack("<Q", content[:8])[0]
    start = 8 + length
    if length > LONGEST_HEADER or start > size:
        raise broken(path, f"its header would take {length:,} bytes of {size:,}")
    metadata, entries = _entries(path, content[8:start])
    infos, places = {}, {}
    for key, entry in entries.items():
        infos[key], places[key] = _tensor(path, key, entry)
    end = start + max((end for _, end in places.values()), default=0)
    if end != size:
        raise broken(path, f"its tensors end at byte {end:,}, the file at {size:,}")
    alphas = {
        key: _number(info.dtype, content[start + places[key][0] : start + places[key][1]])
        for key, info in infos.items()
        if key.endswith(".alpha") and info.dtype in _NUMBERS and prod(info.shape) == 1
    }
    return LoraHeader(infos, metadata, alphas, adapter_settings(metadata, path))


def _entries(path: Path, header: bytes) -> tuple[dict[str, str], dict[str, object]]:
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise broken(path, "its header is not JSON") from error
    metadata = entries.pop("__metadata__", None) or {} if isinstance(entries, dict) else None
    if not isinstance(metadata, dict):
        raise broken(path, "its header is no table of tensors")
    return {key: text for key, text in metadata.items() if isinstance(text, str)}, entries


def _tensor(path: Path, key: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:  # noqa: ANN401 - JSON
    # Plain look-ups: a pattern of the same table takes three times as long, and a file has 1,500 of them.
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, end - start]
    except (TypeError, KeyError, ValueError):
        raise broken(path, f"its entry for {key} is no tensor") from None
    if (
        type(dtype) is not str
        or type(shape) is not list
        or any(type(n) is not int or n < 0 for n in numbers)
    ):
        raise broken(path, f"its entry for {key} is no tensor")
    if dtype in _SIZES and end - start != prod(shape) * _SIZES[dtype]:
        raise broken(path, f"the bytes of {key} do not fit its shape")
    return TensorInfo(dtype, tuple(shape)), (start, end)


def _number(dtype: str, stored: bytes) -> float:
    if dtype == "BF16":  # the upper half of a float32
        dtype, stored = "F32", b"\0\0" + stored
    if dtype in _UNPACK:
        return float(struct.unpack(_UNPACK[dtype], stored)[0])
    return torch.frombuffer(bytearray(stored), dtype=FLOATS[dtype]).float().item()


def broken(path: Path, why: str) -> UserError:
    """The file is not what its name says."""
    return UserError(
        f"{path.name} cannot be read as safetensors ({why}).",
        "A whole safetensors file has a header and all the bytes that the header names.",
        "The file is truncated or not a safetensors file: download or copy it again.",
    )
