"""The files into which a stack is saved as LoRAs: their names, what lies there already, and what marks a pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from ...wan.errors import UserError
from ...wan.families import Role
from ...wan.lora.combine import CombinedLora
from ...wan.lora.files import (
    read_metadata,
    read_tensors,
    tandem_metadata,
    write_safetensors,
)
from ...wan.lora.recipe_store import checked_name
from ...wan.lora.stack import LoraStack, rows_json
from .loras import row_files
from .places import lora_path, publish_folder
from .recipes import digests

ROLES: tuple[Role, ...] = ("single", "high_noise", "low_noise")
OTHER: Mapping[Role, Role] = {"high_noise": "low_noise", "low_noise": "high_noise"}


def file_name(name: object) -> str:
    """The name as files can be called; raises `UserError` for one that cannot be."""
    return checked_name(name, "The file's name")


def path_of(name: str, role: Role) -> Path:
    """`NAME_high_noise.safetensors`, or `NAME.safetensors` for a single model, in the first loras folder."""
    ending = "" if role == "single" else f"_{role}"
    return publish_folder() / f"{name}{ending}.safetensors"


def written_at(name: str) -> list[float]:
    """When the files of that name were written, in seconds since 1970; 0 for one that is not there."""
    paths = [path_of(name, role) for role in ROLES]
    return [path.stat().st_mtime if path.exists() else 0.0 for path in paths]


@dataclass(frozen=True)
class Target:
    """Where a stack is saved, for the given experts."""

    name: str
    roles: tuple[Role, ...]
    stack: LoraStack
    overwrite: bool

    def path(self, role: Role) -> Path:
        return path_of(self.name, role)

    @cached_property
    def pair_id(self) -> str:
        """Equal for the halves of one name and one stack, also when they are saved one after the other."""
        sources = {file: digests()(lora_path(file)) for file in row_files(self.stack.rows)}
        text = json.dumps([self.name, rows_json(self.stack.active()), sources])
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]

    def require_free(self) -> None:
        """Raises `UserError` before the work when files of another stack are there and must not be replaced."""
        paths = {self.path(role) for role in self.roles}
        paths |= {self.path(OTHER[role]) for role in self.roles if role in OTHER}
        self._refuse([path for path in sorted(paths) if path.exists() and not self._is_own(path)])

    def write(self, combined: Mapping[Role, CombinedLora]) -> list[str]:
        """Writes each expert's LoRA, puts a file aside that would be taken for the other half of one, and says what
        was done, a line each. A file that holds the same already stays as it is."""
        loras: dict[Role, CombinedLora] = {r: self._marked(lora) for r, lora in combined.items()}
        same = {role for role, lora in loras.items() if _holds(self.path(role), lora)}
        there = [self.path(role) for role in loras if self.path(role).exists() and role not in same]
        stale = [path for role in loras if (path := self._stale(role, loras)) is not None]
        self._refuse([*there, *stale])
        lines = [
            f"{path.name} belongs to another stack: it is {_put_aside(path)} now" for path in stale
        ]
        for role, lora in loras.items():
            if role not in same:
                write_safetensors(self.path(role), lora.tensors, lora.metadata)
            lines.append(_line(self.path(role), lora, written=role not in same))
        return lines

    def _refuse(self, there: list[Path]) -> None:
        if there and not self.overwrite:
            raise UserError(
                f"{' and '.join(path.name for path in there)} exist already, with another content.",
                "A new name, or overwrite, which replaces them and puts another stack's other half aside.",
                "Choose another name, or set overwrite to true.",
            )

    def _is_own(self, path: Path) -> bool:
        try:
            metadata = read_metadata(path)
        except (
            UserError
        ):  # What cannot be read is none of ours, and may be replaced like any other file.
            return False
        return tandem_metadata(metadata).get("pair_id") == self.pair_id

    def _marked(self, lora: CombinedLora) -> CombinedLora:
        entry = tandem_metadata(lora.metadata) | {"pair_id": self.pair_id}
        return lora._replace(metadata={**lora.metadata, "tandem": json.dumps(entry)})

    def _stale(self, role: Role, loras: Mapping[Role, CombinedLora]) -> Path | None:
        """The file that pairing would take for the other half of this expert's, though it is none of this stack."""
        other = OTHER.get(role)
        if other is None or other in loras or not self.path(other).exists():
            return None
        # An expert that is connected and gets nothing has no half; one that is not may have been saved before.
        kept = other not in self.roles and self._is_own(self.path(other))
        return None if kept else self.path(other)


def _holds(path: Path, lora: CombinedLora) -> bool:
    """Whether the file has these metadata and tensors, to the last bit."""
    if not path.exists():
        return False
    try:
        metadata, there = read_metadata(path), read_tensors(path)
    except UserError:  # A broken file holds something else.
        return False
    if metadata != lora.metadata:
        return False
    return there.keys() == lora.tensors.keys() and all(
        there[key].dtype == tensor.dtype and torch.equal(there[key], tensor.cpu())
        for key, tensor in lora.tensors.items()
    )


def _put_aside(path: Path) -> str:
    """Renames to the first free of FILE.old, FILE.old2, ..., which no list shows; its new name."""
    number, aside = 1, path.with_name(f"{path.name}.old")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.old{number}")
    path.rename(aside)
    return aside.name


def _line(path: Path, lora: CombinedLora, *, written: bool) -> str:
    size = path.stat().st_size / 1e6
    whole = f", {len(lora.whole)} parameters stored whole" if lora.whole else ""
    there = "" if written else ", was there already with the same content"
    return f"{path.name}: {len(lora.tensors)} tensors, {size:.1f} MB{whole}{there}"
