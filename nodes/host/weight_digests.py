"""What a model of the host computes with, as digests: its weights to the last value, and what is patched onto them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch

BLOCK = 16 << 20
"""Bytes that are hashed at a time: a weight on another device is copied in pieces."""
THREADS = 8
_tokens: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def whole_tensors_digest(tensors: Mapping[str, torch.Tensor], more: str) -> str:
    """64 hex digits of names, shapes, dtypes and every value of `tensors`. 11 GB take seconds: see who remembers it."""
    names = sorted(tensors)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(lambda name: _tensor_digest(tensors[name]), names))
    text = json.dumps([more, list(zip(names, digests, strict=True))])
    return hashlib.sha256(text.encode()).hexdigest()


def patch_facts(patches: Mapping[str, Iterable[Any]]) -> tuple[dict[str, torch.Tensor], str]:
    """The host's patches as tensors by name, and a text of everything else: strengths, kinds, places, functions.

    The text is empty where there are no patches.
    """
    tensors: dict[str, torch.Tensor] = {}
    facts = []
    for key, entries in sorted(patches.items()):
        for number, entry in enumerate(entries):
            inside: list[torch.Tensor] = []
            facts.append([key, described(entry, inside)])
            tensors |= {f"patch {key} {number}.{i}": tensor for i, tensor in enumerate(inside)}
    return tensors, json.dumps(facts) if facts else ""


def described(value: Any, tensors: list[torch.Tensor]) -> Any:  # noqa: ANN401 - whatever a patch holds, as JSON
    """`value` as JSON holds it. Tensors in it are added to `tensors`; what cannot be read gets a random name that it
    keeps as long as it lives, so that it is never taken for something else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return ["tensor"]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(described(part, tensors) for part in value)]
    if isinstance(value, Mapping):
        parts = sorted(value.items(), key=lambda item: str(item[0]))
        return ["dict", *([str(name), described(part, tensors)] for name, part in parts)]
    if isinstance(value, (torch.dtype, torch.device, Enum)):
        return [str(value)]
    if (weights := getattr(value, "weights", None)) is not None:
        return [_name(type(value)), described(weights, tensors)]
    function = value.__func__ if isinstance(value, MethodType) else value
    if isinstance(function, FunctionType) and not _holds_something(function):
        code = function.__code__
        consts = [str(const) for const in code.co_consts if not isinstance(const, CodeType)]
        return [_name(function), code.co_firstlineno, code.co_code.hex(), consts]
    return [_name(type(value)), token_of(value)]


def _holds_something(function: FunctionType) -> bool:
    return bool(function.__closure__ or function.__defaults__ or function.__kwdefaults__)


def token_of(value: object) -> str:
    """Random letters that belong to this object while it lives. An address is given again to another one."""
    try:
        return _tokens.setdefault(value, secrets.token_hex(16))
    except TypeError:  # it cannot be referred to weakly
        return secrets.token_hex(16)


def _name(thing: Any) -> str:  # noqa: ANN401 - a class or a function
    return f"{thing.__module__}.{thing.__qualname__}"


def _tensor_digest(tensor: torch.Tensor) -> str:
    """Quantised tensors give their stored numbers: computing values from them depends on the device."""
    stored, params = getattr(tensor, "_qdata", None), getattr(tensor, "_params", None)
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    _update(digest, tensor if stored is None else stored)
    if dataclasses.is_dataclass(params):
        for field in dataclasses.fields(params):
            value = getattr(params, field.name)
            digest.update(field.name.encode())
            if isinstance(value, torch.Tensor):
                _update(digest, value)
            else:
                digest.update(str(value).encode())
    return digest.hexdigest()


def _update(digest: Any, tensor: torch.Tensor) -> None:  # noqa: ANN401 - hashlib names no type for it
    flat = tensor.detach().reshape(-1)
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    step = max(1, BLOCK // flat.element_size())
    for start in range(0, flat.numel(), step):
        block = flat[start : start + step].cpu().contiguous()
        digest.update(block.view(torch.uint8).numpy())
