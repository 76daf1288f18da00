"""Where things lie in the host's folders."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...training.cache.latent_cache import LIMIT_GIB, LatentCache
from ...training.data.lists import printable
from ...wan.errors import UserError

LIMIT_VARIABLE = "TANDEM_CACHE_GIB"
"""Environment variable: GiB that the cache may hold."""


def dataset_folder(folder: str) -> Path:
    """A dataset folder that its owner names: by its full path, or below the host's input folder."""
    text = folder.strip()
    if not text:
        raise UserError(
            "folder is empty.",
            "It is a folder of clips or pictures, under ComfyUI's input folder or given by its full path.",
            "Type its name, for example my_clips.",
        )
    try:
        path = Path(text).expanduser()
    except (RuntimeError, ValueError):  # no such user, no such name
        path = Path(text)
    if "\0" in text or (text.startswith("~") and not path.is_absolute()):
        raise UserError(
            f"folder is {printable(folder)!r}, which cannot be the name of a folder.",
            "It is a folder of clips or pictures, under ComfyUI's input folder or given by its full path.",
            "Type its name, for example my_clips.",
        )
    if path.is_absolute():
        return path
    inputs = Path(folder_paths.get_input_directory()).resolve()
    # A link that lies in the input folder is its owner's choice, wherever it leads.
    inside = Path(os.path.normpath(inputs / path))
    if inputs not in (inside, *inside.parents):
        raise UserError(
            f"folder is {folder!r}, which leaves the input folder.",
            "A name without a full path lies below ComfyUI's input folder.",
            "Give the full path if the dataset lies elsewhere.",
        )
    return inside


def jobs_root() -> Path:
    """`output/tandem`: a folder a run."""
    return Path(folder_paths.get_output_directory()) / "tandem"


def exported_plans_root() -> Path:
    """`output/tandem_plans`: plans as the configs of other trainers, a folder each."""
    return Path(folder_paths.get_output_directory()) / "tandem_plans"


def cache_folder() -> Path:
    """`output/tandem_cache`: encoded clips and captions. Not under `output/tandem`, whose files are LoRAs."""
    return Path(folder_paths.get_output_directory()) / "tandem_cache"


def open_cache() -> LatentCache:
    """The cache, as large as `TANDEM_CACHE_GIB` says."""
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        limit = float(given) if given else LIMIT_GIB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UserError(
            f"{LIMIT_VARIABLE} is {given!r}.",
            f"It is how many GiB of encoded clips are kept, for example 50; without it, {LIMIT_GIB:g}.",
            "Correct it or take it away, and start ComfyUI again.",
        )
    return LatentCache(cache_folder(), limit_gib=limit)


def publish_folder() -> Path:
    """The first loras folder: where the best pair of a run is put under the run's own name."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def register_places() -> None:
    """Makes every checkpoint selectable in the host's LoRA lists."""
    folder_paths.add_model_folder_path("loras", str(jobs_root()))


def lora_names() -> list[str]:
    """Every LoRA as the host's lists show it."""
    return folder_paths.get_filename_list("loras")


def lora_path(name: str) -> Path:
    """The file of a LoRA as named in the host's lists."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        near = [
            other
            for other in lora_names()
            if Path(other).stem.lower() in name.lower() or name.lower() in other.lower()
        ]
        raise UserError(
            f"The LoRA {name!r} is not in a loras folder.",
            f"There are {len(lora_names())} LoRAs{'; like it: ' + ', '.join(near[:3]) if near else ''}.",
            "Check the spelling (subfolders count), or copy the file there.",
        )
    return Path(path)


def lora_name(path: Path) -> str:
    """The name by which the host's lists show a file."""
    for root in map(Path, folder_paths.get_folder_paths("loras")):
        if root in path.parents:
            return path.relative_to(root).as_posix()
    raise ValueError(f"{path} lies in no loras folder")
