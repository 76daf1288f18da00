"""Finds a Chromium for the browser tests, and installs one where that is possible."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
INSTALLED = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
)
PLAYWRIGHT_CACHES = ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
PLAYWRIGHT_BINARIES = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "chromium-*/chrome-win*/chrome.exe",
)


@functools.cache
def find_browser() -> Path | None:
    """A Chromium that starts: one on the PATH, in its usual place, or Playwright's; else None."""
    return next(filter(_starts, _candidates()), None)


def _candidates() -> Iterator[Path]:
    yield from (Path(found) for name in NAMES if (found := shutil.which(name)))
    yield from filter(Path.is_file, map(Path, INSTALLED))
    named = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = [named] if named else [*PLAYWRIGHT_CACHES]
    if local := os.environ.get("LOCALAPPDATA"):
        caches.append(f"{local}/ms-playwright")
    for cache in caches:
        for pattern in PLAYWRIGHT_BINARIES:
            yield from sorted(Path(cache).expanduser().glob(pattern), reverse=True)


def _starts(binary: Path) -> bool:
    """Ubuntu's `chromium-browser` may be a stub that only says where to get it."""
    if sys.platform != "linux":
        return True  # Chrome on Windows would open a window
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _ways() -> dict[str, list[list[str]]]:
    """Ways to install a Chromium here, by name, the preferred one first."""
    ways = {}
    if _is_debian() and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "chromium"]
        ways["the system's package"] = [["apt-get", "update"], install]
    ways["Playwright's own"] = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    return ways


def _is_debian() -> bool:
    if sys.platform != "linux":
        return False
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return "debian" in f"{release.get('ID')} {release.get('ID_LIKE')}"


def _succeeds(command: list[str]) -> bool:
    print("$", *command, flush=True)
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except OSError as error:
        print(error)
        return False


def main() -> int:
    """Install a Chromium unless there is one; without one the browser tests skip, so never fail."""
    tried: list[str] = []
    for name, commands in _ways().items():
        if find_browser():
            break
        print(f"No Chromium found; trying {name}.")
        all(map(_succeeds, commands))
        tried.append(name)
        find_browser.cache_clear()
    if browser := find_browser():
        print(f"Chromium: {browser}")
    else:
        print(
            f"There is no Chromium, and {' and '.join(tried)} did not bring one: the browser tests "
            "will skip. Install chromium or google-chrome so that it is on the PATH."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
