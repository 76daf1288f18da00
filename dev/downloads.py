"""Files of the package index, by their exact content, and what is unpacked from them."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __package__:
    from .building import SetupError, run_logged
else:
    from building import SetupError, run_logged

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Download:
    requirement: str
    sha256: str
    options: tuple[str, ...]
    """What tells pip which of the version's files is meant."""


def fetch(download: Download, python: Path, folder: Path, log: Path) -> Path:
    """Download one file into `folder` with the pip of `python`, and check that it is the one."""
    command = [str(python), "-I", "-m", "pip", "download", "--no-input", "--no-deps"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "--dest", str(folder)]
    command += [*download.options, download.requirement]
    run_logged(command, log, f"Downloading {download.requirement}")
    (archive,) = folder.iterdir()
    came = hashlib.sha256(archive.read_bytes()).hexdigest()
    if came != download.sha256:
        raise SetupError(
            f"{archive.name} came with sha256 {came}, expected {download.sha256}: the index or a "
            "mirror serves another file. Unset PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and "
            "PIP_FIND_LINKS, then run the same command again."
        )
    return archive


def unpack_tree(archive: Path, prefix: str, folder: Path) -> None:
    """Unpack what lies below `prefix` in a tar archive into `folder`: plain files and folders."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.name.startswith(prefix)]
        for member in members:
            member.name = member.name[len(prefix) :]
            _check_member(member)
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, members, filter="data")
        else:  # Python 3.10 before 3.10.12
            tar.extractall(folder, members)


def _check_member(member: tarfile.TarInfo) -> None:
    path = Path(member.name)
    inside = not path.is_absolute() and ".." not in path.parts
    if not (inside and (member.isfile() or member.isdir())):
        raise SetupError(
            f"The archive holds {member.name!r}; only plain files and folders inside the target "
            "are unpacked. Do not use this archive, and report where it came from."
        )


def unpack_files(archive: Path, names: Sequence[str], folder: Path) -> None:
    """Copy the named files of a zip archive into `folder`, flat."""
    with zipfile.ZipFile(archive) as zipped:
        for name in names:
            (folder / Path(name).name).write_bytes(zipped.read(name))
