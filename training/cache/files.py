"""One entry of the cache as a safetensors file: a tensor, what it is of, and a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

CACHE_VERSION = 1
"""Part of every key: entries of another version are never read, and leave when room is needed."""
SUFFIX, PART = ".safetensors", ".part"
NAME = "tensor"
_HEADER = struct.Struct("<Q")

Fact = str | int | float | bool | list["Fact"] | None


class BadEntry(Exception):  # noqa: N818 - who meets it makes the entry again
    """A file that is not the entry it should be: cut off, changed, or another one's."""


def entry_key(kind: str, facts: Mapping[str, Fact]) -> str:
    """64 hex digits that differ when anything differs that the entry depends on.

    The order of `facts` does not count; 16 and 16.0 are different facts, so callers give one kind of number.
    """
    text = json.dumps(
        {"version": CACHE_VERSION, "kind": kind, "facts": dict(facts)},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def entry_path(folder: Path, key: str) -> Path:
    """Entries lie in 256 folders: no file system likes a hundred thousand files in one."""
    return folder / key[:2] / f"{key}{SUFFIX}"


def write_entry(path: Path, tensor: torch.Tensor, *, key: str, about: str) -> int:
    """Writes beside `path`, then renames; returns the bytes of the file. `about` is for people.

    Rows of zeros at the end of a matrix are left out: a text embedding is mostly padding.
    """
    kept = tensor.detach().cpu().float()
    if kept.ndim == 2:
        filled = kept.ne(0).any(1).nonzero()
        kept = kept[: int(filled[-1]) + 1 if len(filled) else 0]
    # Cloned outside inference mode: `save` asks for storage of the tensor's own.
    with torch.inference_mode(False):
        kept = kept.contiguous().clone()
    shape = json.dumps(list(tensor.shape))
    metadata = {
        "tandem_cache": str(CACHE_VERSION),
        "key": key,
        "shape": shape,
        "checksum": _checksum(shape, kept.numpy().tobytes()),
        # A file's name need not be text.
        "about": about.encode("utf-8", "replace").decode("utf-8"),
    }
    data = save({NAME: kept}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{PART}")
    try:
        _write_file(beside, data)
        _put(beside, path, key)
    finally:
        beside.unlink(missing_ok=True)
    return len(data)


def read_entry(path: Path, key: str, *, verify: bool) -> torch.Tensor:
    """The tensor, float32, on the CPU; a normal one in any mode.

    `verify` compares it with its checksum, and wants finite values. Raises `BadEntry`, and `FileNotFoundError` where
    there is none.
    """
    data = path.read_bytes()
    metadata, body = _parts(data)
    if metadata.get("key") != key:
        raise BadEntry("it is the entry of something else")
    if verify and _checksum(str(metadata.get("shape")), body) != metadata.get("checksum"):
        raise BadEntry("its content does not fit its checksum")
    try:
        shape = tuple(int(size) for size in json.loads(metadata["shape"]))
        with torch.inference_mode(False):
            tensor = _whole(load(data)[NAME], shape)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BadEntry(f"it cannot be read ({error})") from error
    if verify and not tensor.isfinite().all():
        raise BadEntry("it holds values that are not finite")
    return tensor


def _put(beside: Path, path: Path, key: str) -> None:
    """Renames; where another process has the same entry open, which Windows then protects, that one is as good."""
    try:
        os.replace(beside, path)
    except PermissionError:
        try:
            read_entry(path, key, verify=True)
        except (BadEntry, OSError):
            there = False
        else:
            there = True
        if not there:
            raise


def _whole(kept: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor with the rows of zeros that were left out."""
    if kept.dtype != torch.float32:
        raise BadEntry(f"it holds {kept.dtype}")
    if kept.shape == shape:
        return kept
    if len(shape) != 2 or kept.ndim != 2 or kept.shape[1] != shape[1]:
        raise BadEntry(f"its shape is {tuple(kept.shape)} and should be {shape}")
    rest = kept.new_zeros(shape[0] - kept.shape[0], shape[1])
    return torch.cat([kept, rest])


def _checksum(shape: str, body: bytes | memoryview) -> str:
    digest = hashlib.sha256(f"{shape}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def _parts(data: bytes) -> tuple[Mapping[str, str], memoryview]:
    """Metadata and the bytes of the tensors."""
    try:
        (length,) = _HEADER.unpack_from(data)
        start = _HEADER.size + length
        header = json.loads(data[_HEADER.size : start])
        metadata = dict(header["__metadata__"])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise BadEntry("it is cut off or no entry at all") from error
    return metadata, memoryview(data)[start:]


def _write_file(path: Path, data: bytes) -> None:
    path.write_bytes(data)
