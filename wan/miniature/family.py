"""The miniature family that is shipped: where its files lie, and how they come into a host's folders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..lora.files import read_metadata
from .random_family import FamilyFiles

PREFIX = "mini_wan2.2"
VERSION_KEY, VERSION = "tandem_miniature", "1"
FILES: Mapping[str, tuple[str, ...]] = {
    "diffusion_models": ("i2v_high_noise", "i2v_low_noise", "t2v"),
    "vae": ("vae",),
    "text_encoders": ("umt5",),
}
"""Kind of model to the parts of the family; a file is PREFIX_PART.safetensors."""
SHIPPED = Path(__file__).with_name("weights")
SHIPPED_LORAS = Path(__file__).with_name("loras")
LORA_FOLDER = "mini"
"""Where in a host's LoRA folder the shipped LoRAs go."""


def install_family(models_dir: Path, shipped: Path = SHIPPED) -> FamilyFiles:
    """Copies the shipped files to where ComfyUI's stock loaders look for them.

    Raises `UserError` when one is missing or belongs to another version of the recipe.
    """
    found = {
        (kind, part): _checked(shipped / f"{PREFIX}_{part}.safetensors")
        for kind, parts in FILES.items()
        for part in parts
    }
    placed = {part: _place(source, models_dir / kind) for (kind, part), source in found.items()}
    for source in sorted(SHIPPED_LORAS.glob("*.safetensors")):
        _place(source, models_dir / "loras" / LORA_FOLDER)
    return FamilyFiles(
        placed["i2v_high_noise"], placed["i2v_low_noise"], placed["vae"], placed["umt5"]
    )


def _place(source: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    beside = target.with_name(f".{target.name}")
    shutil.copyfile(source, beside)
    beside.replace(target)
    return target


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise _unusable(path, "is not there")
    version = read_metadata(path).get(VERSION_KEY)
    if version != VERSION:
        raise _unusable(path, f"is of version {version}, this code is of version {VERSION}")
    return path


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path.name} {why}.",
        f"The five files of the miniature family lie in {path.parent}.",
        "Take them from the repository, or train them again (about 40 minutes): "
        "python -m tandem_wan.wan.miniature train FOLDER, then copy FOLDER/models/*/* there.",
    )
