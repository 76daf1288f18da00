"""LoRAs in PyTorch's own file format, which can carry code: only plain tensors are taken, and nothing is executed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from ..errors import UserError
from .header import missing

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
INSIDE = "state_dict"
"""The one entry that may hold the tensors instead of the file itself."""

_BROKEN = "it is truncated or no PyTorch file"
_NOT_PLAIN = "it holds more than tensors, which may be code"


def read_pickle(path: Path, *, mapped: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file by name, on the CPU.

    mapped: leave the weights on disk until they are looked at, where the file's format allows it.

    Raises `UserError` for anything but plain tensors. PyTorch's restricted reader knows tensors and containers only;
    a file that names any other function or class is refused before that is looked up.
    """
    try:
        mmap = mapped and zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise missing(path) from None
    # The error's own module is never imported in this pack: it is the one that runs code.
    except torch.serialization.pickle.UnpicklingError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise _refused(path, _BROKEN if "operand" in str(error) else _NOT_PLAIN) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise _refused(path, _BROKEN) from error
    if isinstance(content, dict) and isinstance(content.get(INSIDE), dict):
        content = content[INSIDE]
    if not isinstance(content, dict) or not content:
        raise _refused(path, "it holds no table of tensors")
    strange = next((key for key, value in content.items() if not _plain(key, value)), None)
    if strange is not None:
        raise _refused(path, f"its entry {strange!r} is no plain tensor")
    return {key: tensor.detach() for key, tensor in content.items()}


def _plain(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and type(value) in (torch.Tensor, torch.nn.Parameter)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
    )


def _refused(path: Path, why: str) -> UserError:
    return UserError(
        f"{path.name} cannot be used ({why}).",
        "A LoRA in a .pt, .pth, .ckpt or .bin file is a table of plain tensors; no code of it is ever run.",
        "Convert it to safetensors with the program that wrote it, or download it again.",
    )
