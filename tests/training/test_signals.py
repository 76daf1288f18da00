"""SIGTERM and SIGHUP: a live run is saved first; everything else ends as if we were not there."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
SIGNALS = Path(__file__).parents[2] / "nodes" / "host" / "signals.py"
CHILD = """
import importlib.util, os, signal, sys, threading, time

spec = importlib.util.spec_from_file_location("signals", sys.argv[1])
signals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signals)

def say(text):
    os.write(1, text.encode() + b"\\n")

class Runner:
    live = True
    seconds = 0.3

    def runs(self):
        return [1] if self.live else []

    def shutdown(self, timeout_s):
        say(f"saving for {timeout_s:g}")
        time.sleep(min(self.seconds, timeout_s))
        say("saved")

runner = Runner()
{arrange}
signals.save_on_signals(runner, limit_s={limit})
{then}
say("ready")
while True:
    time.sleep(0.01)
"""


def hear_everything():
    """Tests that are run under nohup would hand its deafness for SIGHUP on."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def child(arrange="", limit_s=0.5):
    code = (
        CHILD.replace("{arrange}", arrange).replace("{then}", "").replace("{limit}", str(limit_s))
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(SIGNALS)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_everything,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def said_until_end(process, number):
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    return out.splitlines(), process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_live_run_is_saved_and_then_the_process_ends_by_the_same_signal(number):
    assert said_until_end(child(), number) == (["saving for 0.5", "saved"], -number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_without_a_live_run_the_process_ends_at_once_by_the_same_signal(number):
    assert said_until_end(child("runner.live = False"), number) == ([], -number)


def test_a_second_signal_ends_the_process_while_it_saves():
    process = child("runner.seconds = 60", limit_s=60)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline().startswith("saving")
    assert said_until_end(process, signal.SIGTERM) == ([], -signal.SIGTERM)


def test_a_run_that_cannot_be_saved_in_time_is_left():
    began = time.monotonic()
    said, code = said_until_end(child("runner.seconds = 60"), signal.SIGTERM)
    assert (said, code) == (["saving for 0.5", "saved"], -signal.SIGTERM)
    assert time.monotonic() - began < 5


EARLIER = "def earlier(number, frame): say('earlier'); os._exit(7)\nsignal.signal(signal.SIGTERM, earlier)"


def test_an_earlier_handler_is_called_with_its_exit_code():
    idle = child(f"{EARLIER}\nrunner.live = False")
    assert said_until_end(idle, signal.SIGTERM) == (["earlier"], 7)
    live = child(EARLIER)
    assert said_until_end(live, signal.SIGTERM) == (["saving for 0.5", "saved", "earlier"], 7)


def test_an_ignored_signal_stays_ignored():
    process = child("signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.1)
    assert process.poll() is None
    assert said_until_end(process, signal.SIGTERM)[1] == -signal.SIGTERM


def test_a_fork_of_the_process_ends_at_once():
    """As a loader's worker does that its pool terminates."""
    fork = "pid = os.fork()\nif pid: say(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))\n"
    fork += "else:\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    code = CHILD.replace("{arrange}", "").replace("{then}", fork).replace("{limit}", "0.5")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(SIGNALS)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_everything,
    )
    assert process.stdout.readline() == f"{-signal.SIGTERM}\n"
    assert process.stdout.readline() == "ready\n"
    assert said_until_end(process, signal.SIGTERM)[0] == ["saving for 0.5", "saved"]


def test_outside_the_main_thread_nothing_is_changed():
    arrange = "main = signals.save_on_signals\n"
    arrange += "def elsewhere(*a, **k):\n    t = threading.Thread(target=main, args=a, kwargs=k); t.start(); t.join()\n"
    arrange += "signals.save_on_signals = elsewhere"
    assert said_until_end(child(arrange), signal.SIGTERM) == ([], -signal.SIGTERM)
