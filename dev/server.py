"""Starts the real ComfyUI with this pack, in its own process, and never leaves it behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .client import HostClient
from .errors import HostFailed, HostUnreachable

MODEL_FOLDERS = (
    "checkpoints",
    "clip_vision",
    "diffusion_models",
    "loras",
    "text_encoders",
    "vae",
)
BASE_FOLDERS = ("custom_nodes", "input", "output", "temp", "user")
NOT_COPIED = (".git", "demo", "node_modules", "__pycache__", ".*_cache")
DISTURBING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONINSPECT")

COLOURS = re.compile(r"\x1b\[\d+m")

STOP_S = 10.0
POLL_S = 0.2

# Waits for our end of the pipe: one byte is an orderly stop, none means that we were killed.
WATCH = """
import os, signal, sys
if not sys.stdin.buffer.read(1):
    kill = getattr(os, "killpg", os.kill)
    kill(int(sys.argv[1]), getattr(signal, "SIGKILL", signal.SIGTERM))
"""


def prepare_base(folder: Path, pack_root: Path) -> Path:
    """Make `folder` a base directory of the host, with the checkout at custom_nodes/tandem."""
    for name in BASE_FOLDERS + tuple(f"models/{name}" for name in MODEL_FOLDERS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    place = folder / "custom_nodes" / "tandem"
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    try:
        place.symlink_to(pack_root.resolve(), target_is_directory=True)
    except OSError:  # Windows, without the right to make links
        shutil.copytree(pack_root, place, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return folder


def free_port(first: int = 0) -> int:
    """`first` or the next port that nobody listens on; 0 leaves the choice to the system."""
    for port in range(first, first + 100) if first else [0]:
        with socket.socket() as probe:
            if sys.platform != "win32":  # there it would take a port in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise HostFailed(f"Ports {first} to {first + 99} are all in use: free one, or name another.")


class HostServer:
    """A ComfyUI over the base directory `base`, from `start()` or `with` until `stop()`.

    `nodes` names the node types that must be there once it runs; `log` (default: server.log in
    `base`) has all it says. The host's tree is TANDEM_COMFYUI unless `comfyui` names one.
    """

    def __init__(
        self,
        base: Path,
        *,
        args: Sequence[str] = (),
        nodes: Sequence[str] = (),
        port: int = 0,
        cpu: bool = True,
        comfyui: Path | None = None,
        log: Path | None = None,
        timeout_s: float = 180.0,
    ) -> None:
        self.base = base.absolute()
        self.args = [*(["--cpu"] if cpu else []), *args]
        self.nodes = nodes
        self.port = port or free_port()
        self.comfyui = comfyui or _environment_tree()
        self.log = log or self.base / "server.log"
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self, *, timeout_s: float = 30.0) -> HostClient:
        return HostClient(self.url, timeout_s=timeout_s)

    def tail(self, num_lines: int = 40) -> str:
        """The last lines of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(COLOURS.sub("", text).splitlines()[-num_lines:])

    def __enter__(self) -> HostServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the host and wait until it answers and shows `nodes`."""
        assert not self.running, "this host runs already"
        atexit.register(self.stop)
        try:
            self._launch()
            self._wait_until_up()
            self._check_nodes()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the host and all it has started; harmless when it does not run."""
        process, watch = self._process, self._watch
        self._process = self._watch = None
        atexit.unregister(self.stop)
        if process:
            _end(process)
        if watch:
            watch.communicate(b".")

    def _launch(self) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # So a shell starts what it runs in the background, and the host would inherit it: one that nobody
            # can interrupt. A handler of Python's own is not inherited.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.comfyui,
                env=_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # our Ctrl-C is ours: `stop` ends it, and its children
            )
        self._watch = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCH, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _command(self) -> list[str]:
        fixed = ["--listen", "127.0.0.1", "--port", str(self.port)]
        fixed += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        fixed += ["--disable-api-nodes", "--disable-auto-launch"]
        return [sys.executable, "main.py", *fixed, *self.args]

    def _wait_until_up(self) -> None:
        client, deadline = self.client(timeout_s=5.0), time.monotonic() + self.timeout_s
        while time.monotonic() < deadline:
            if not self.running:
                raise HostFailed(self._failure("ended before it answered"))
            try:
                client.get("/system_stats")
                return
            except HostUnreachable:
                time.sleep(POLL_S)
        raise HostFailed(self._failure(f"did not answer within {self.timeout_s:g} s"))

    def _check_nodes(self) -> None:
        missing = sorted(set(self.nodes) - self.client().object_info().keys()) if self.nodes else []
        if missing:
            raise HostFailed(self._failure(f"runs without the nodes {', '.join(missing)}"))

    def _failure(self, what: str) -> str:
        return (
            f"ComfyUI on port {self.port} {what}. The end of {self.log}:\n\n{self.tail()}\n\n"
            "Mend what the log names (`IMPORT FAILED` marks a pack that did not load)."
        )


def _environment_tree() -> Path:
    named = os.environ.get("TANDEM_COMFYUI")
    if not named:
        raise HostFailed(
            "TANDEM_COMFYUI is not set, so there is no ComfyUI to start. Run this through "
            "`python3 dev/environment.py run`, as make does, or name a tree in it."
        )
    return Path(named)


def _environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in DISTURBING}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # and what it has started
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
