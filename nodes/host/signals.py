"""A signal that ends the process (kill, docker stop, a closed terminal) while a run is live: it is saved first.

Nothing of ComfyUI is needed here. Where no run is live, and for a second signal, everything is as without us: the
handler of before is called, or the system's own way to end, with the exit code that it has.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Protocol

logger = logging.getLogger("tandem.training")
LIMIT_S = 8.0
"""For the micro-batch and the checkpoint: Docker kills 10 seconds after it has asked."""
NAMES = ("SIGTERM", "SIGHUP")


class Saved(Protocol):
    """What is live, and can be saved and ended: a `Runner`."""

    def runs(self) -> list: ...

    def shutdown(self, timeout_s: float) -> None: ...


def save_on_signals(runner: Saved, *, limit_s: float = LIMIT_S) -> None:
    """From now on a live run is saved before one of these signals ends the process.

    To be called once, in the main thread: in others Python takes no handlers, and nothing is done, as on Windows,
    which has no such signals. A signal that is ignored (nohup) stays so.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    for name in NAMES:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:
            _Saving(runner, number, limit_s).install()


class _Saving:
    def __init__(self, runner: Saved, number: int, limit_s: float) -> None:
        self._runner, self._number, self._limit_s = runner, number, limit_s
        self._process = os.getpid()

    def install(self) -> None:
        # None is a handler that was not made by Python: it cannot be put back.
        if (earlier := signal.getsignal(self._number)) is not None:
            self._earlier = earlier
            signal.signal(self._number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        # A fork of this process has a copy of the list of runs, and none of them.
        if os.getpid() == self._process and self._runner.runs():
            # From here a second signal is as without us.
            signal.signal(number, self._earlier)
            logger.info("%s: the run is saved first.", signal.Signals(number).name)
            # Not in this thread: the run may wait for what the interrupted code holds.
            threading.Thread(target=self._save_and_end, name="tandem-saving", daemon=True).start()
        elif callable(self._earlier):
            self._earlier(number, frame)
        else:
            signal.signal(number, self._earlier)
            os.kill(os.getpid(), number)

    def _save_and_end(self) -> None:
        try:
            self._runner.shutdown(self._limit_s)
        finally:
            os.kill(os.getpid(), self._number)
