"""How the environment's parts are made: one builder at a time, stamped folders, logged commands.

Standard library only, and nothing at import that Python 3.8 lacks: `environment.py` loads this
before it can say which Python it needs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STAMP = "complete.txt"
"""Written last into every part: a folder without it was cut off, and is made again."""

HEARTBEAT_S = 30
OLDEST, NEWEST = (3, 10), (3, 13)
NEEDED_GB = 9
NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|name resolution|getaddrinfo|unreachable|"
    r"ProxyError|ReadTimeout|ConnectTimeout|Connection refused|SSLError",
    re.IGNORECASE,
)
DISTURBING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")
DISTURBING_PIP = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")


class SetupError(Exception):
    """The environment cannot be built; the text says what came, what can be and what to do."""


def say(text: str) -> None:
    """Progress goes to stderr: stdout belongs to `path` and to what `run` starts."""
    print(text, file=sys.stderr, flush=True)


def check_python() -> None:
    came = ".".join(map(str, sys.version_info[:3]))
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SetupError(
            f"This is Python {came}; the development environment takes 3.10 to 3.13. Name one: "
            "make PYTHON=python3.12 ..."
        )
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"This Python {came} lacks {' and '.join(missing)}, which it takes to make one. "
            "Install them (Debian, Ubuntu: apt install python3-venv) or name another Python: "
            "make PYTHON=python3.12 ..."
        )


def check_disk(folder: Path) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < NEEDED_GB:
        raise SetupError(
            f"{folder} has {free_gb:.1f} GB free; torch, the host and their downloads take "
            f"{NEEDED_GB} GB. Free some (`python3 dev/environment.py prune` deletes old "
            "environments), or name a folder with room in TANDEM_HOME."
        )


def is_complete(folder: Path) -> bool:
    return (folder / STAMP).is_file()


def build_once(folder: Path, what: str, build: Callable[[Path], None]) -> None:
    """Run `build(folder)` on a fresh folder, unless an earlier run has completed it."""
    if is_complete(folder):
        return
    started = time.monotonic()
    say(f"{what}: {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build(folder)
    (folder / STAMP).write_text(f"{what}\n", encoding="utf-8")
    say(f"{what}: done in {time.monotonic() - started:.0f} s")


@contextmanager
def only_builder(lock: Path) -> Iterator[None]:
    """Hold `lock`; a second process waits here until the first is through."""
    handle = _try_lock(lock)
    if handle is None:
        say(f"Another process is building in {lock.parent}: waiting for it.")
    while handle is None:
        time.sleep(0.5)
        handle = _try_lock(lock)
    try:
        yield
    finally:
        os.close(handle)
        if fcntl is None:
            lock.unlink(missing_ok=True)


def _try_lock(lock: Path) -> int | None:
    if fcntl is None:
        # O_TEMPORARY: Windows deletes the file with its last handle, also after a crash.
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_TEMPORARY", 0)
        try:
            return os.open(lock, flags)
        except (FileExistsError, PermissionError):
            return None
    handle = os.open(lock, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    # Our pip inherits the lock: if we are killed, nobody builds where it still writes.
    os.set_inheritable(handle, True)
    return handle


def environ_without(*names: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}


def run_logged(command: Sequence[str], log: Path, what: str) -> None:
    """Run `command` with its output in `log`; repeat its last line now and then."""
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ_without(*DISTURBING, *DISTURBING_PIP),
            close_fds=os.name == "nt",
        )
        try:
            while (code := _wait(process)) is None:
                say(f"  {time.monotonic() - started:.0f} s: {_tail(log, 1).strip()[:100]}")
        except BaseException:
            process.kill()
            raise
    if code:
        raise SetupError(_failure(what, code, log))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=HEARTBEAT_S)
    except subprocess.TimeoutExpired:
        return None


def _tail(log: Path, num_lines: int) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-num_lines:])


def _failure(what: str, code: int, log: Path) -> str:
    tail = _tail(log, 15)
    advice = "Mend what the lines above name, then run the same command again."
    if NO_NETWORK.search(tail):
        advice = (
            "The package index did not answer. Check the network and the proxy, or name an index "
            "that can be reached in PIP_INDEX_URL, then run the same command again."
        )
    return f"{what} ended with exit status {code}. The end of {log}:\n\n{tail}\n\n{advice}"
