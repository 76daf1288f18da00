"""Pause, resume and stop from other threads, whatever the run does meanwhile."""

import random
import threading
import time
from contextlib import suppress
from itertools import pairwise

import pytest
from tandem_wan.training.control import Control
from tandem_wan.training.states import LIVE, STATES, TRANSITIONS
from tandem_wan.training.turns import RunStopped, in_turn
from tandem_wan.wan.errors import UserError

LIMIT_S = 20.0
ALLOWED = {
    "pause": {"running", "parked", "paused"},
    "resume": {"running", "parked", "paused"},
    "stop": {"queued", "running", "parked", "paused", "stopping"},
}


class Worker:
    """A thread that works in turn, one piece for every `do(1)`."""

    def __init__(self, toys, *, endless: bool = False):
        self.gate, self.states, self.why = toys.gate(), ["queued"], []
        self.inside: list[bool] = []
        self.pieces, self.ended = 0, ""
        self.control = Control(self.gate, lambda: self.states[-1], self.say)
        self._endless, self._permits = endless, threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def say(self, state, message):
        before = self.states[-1]
        assert state in TRANSITIONS[before], f"{before} to {state}"
        self.inside.append(self.gate.inside)
        self.states.append(state)
        self.why.append(message)

    def start(self):
        self._thread.start()
        return self

    def do(self, count):
        for _ in range(count):
            self._permits.release()
        return self

    def join(self):
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), self.states
        return self.ended

    def _run(self):
        try:
            self.control.wait()
            while True:
                in_turn(self.control, self._piece)
        except RunStopped:
            self.ended = "stopped"
        except BaseException as error:
            self.ended = repr(error)
            raise

    def _piece(self):
        assert self.gate.inside, "works only inside the gate"
        if self._endless or self._permits.acquire(timeout=LIMIT_S):
            self.pieces += 1


@pytest.fixture
def worker(toys):
    """A worker that has done one piece and is within its next."""
    worker = Worker(toys).start().do(1)
    toys.eventually(lambda: worker.pieces == 1)
    yield worker
    with suppress(UserError):
        worker.control.stop()
    worker.do(1)
    assert worker.join() == "stopped"


@pytest.fixture
def until(toys, worker):
    """`until("paused")` waits until the worker says so."""
    return lambda state: toys.eventually(lambda: worker.states[-1] == state)


def test_a_run_that_is_let_in_runs_and_was_never_parked(worker):
    assert worker.states == ["queued", "running"]


def test_a_run_stays_queued_until_it_is_let_in(toys):
    worker = Worker(toys)
    worker.gate.set_open(False)
    worker.start()
    time.sleep(0.02)
    assert (worker.states, worker.pieces, worker.gate.inside) == (["queued"], 0, False)
    worker.gate.set_open(True)
    toys.eventually(lambda: worker.states == ["queued", "running"])
    worker.control.stop()
    worker.do(1)
    assert worker.join() == "stopped"


def test_a_closed_gate_parks_and_an_open_one_goes_on_by_itself(worker, until, toys):
    worker.gate.set_open(False)
    assert worker.states[-1] == "running", "until the piece of work is done"
    worker.do(1)
    until("parked")
    assert not worker.gate.inside
    worker.do(1).gate.set_open(True)
    toys.eventually(lambda: worker.pieces == 3)
    assert worker.states == ["queued", "running", "parked", "running"]
    assert worker.inside == [True, False, True], "said when it is so"


def test_a_pause_waits_for_the_piece_of_work_and_for_a_resume(worker, until, toys):
    worker.control.pause()
    assert (worker.states[-1], worker.control.wish) == ("running", "pause")
    worker.do(1)
    until("paused")
    assert (worker.control.wish, worker.gate.inside, worker.pieces) == ("", False, 2)
    worker.control.resume()
    until("running")
    worker.do(1)
    toys.eventually(lambda: worker.pieces == 3)
    assert worker.states == ["queued", "running", "paused", "parked", "running"]


def test_a_pause_that_is_taken_back_in_time_is_never_felt(worker, toys):
    worker.control.pause()
    worker.control.resume()
    assert worker.control.wish == ""
    worker.do(2)
    toys.eventually(lambda: worker.pieces == 3)
    assert worker.states == ["queued", "running"]


def test_a_parked_run_is_paused_at_once_and_resumed_parks_until_the_gate_opens(worker, until):
    worker.gate.set_open(False)
    worker.do(1)
    until("parked")
    worker.control.pause()
    until("paused")
    worker.gate.set_open(True)
    time.sleep(0.02)
    assert worker.states[-1] == "paused", "an open gate is no resume"
    worker.gate.set_open(False)
    worker.control.resume()
    until("parked")
    assert worker.pieces == 2
    worker.gate.set_open(True)
    until("running")
    assert worker.states[2:] == ["parked", "paused", "parked", "running"]


def test_pauses_and_resumes_twice_are_as_good_as_once(worker, until, toys):
    worker.control.resume()
    worker.control.pause()
    worker.do(1)
    until("paused")
    worker.control.pause()
    assert worker.control.wish == ""
    worker.control.resume()
    with suppress(UserError):
        worker.control.resume()
    until("running")
    assert worker.states.count("paused") == 1


@pytest.mark.parametrize("before", ["running", "parked", "paused"])
def test_a_stop_says_so_at_once_and_ends_after_the_piece_of_work(worker, until, before):
    if before == "parked":
        worker.gate.set_open(False)
    elif before == "paused":
        worker.control.pause()
    if before != "running":
        worker.do(1)
        until(before)
    worker.control.stop("enough")
    assert (worker.states[-1], worker.why[-1]) == ("stopping", "enough")
    assert (worker.control.wish, worker.control.why) == ("stop", "enough")
    if before == "running":
        assert worker.ended == ""
        worker.do(1)
    assert worker.join() == "stopped"
    assert worker.states[-2:] == [before, "stopping"]
    assert worker.pieces == 2 and not worker.gate.inside


def test_a_stop_of_a_run_that_waits_for_its_first_turn_ends_it_before_it_begins(toys):
    worker = Worker(toys)
    worker.gate.set_open(False)
    worker.start()
    worker.control.stop("not now")
    assert worker.join() == "stopped"
    assert (worker.states, worker.pieces, worker.control.why) == (["queued"], 0, "not now")


def test_a_stop_before_the_thread_has_begun_is_kept(toys):
    worker = Worker(toys)
    worker.control.stop()
    assert worker.start().join() == "stopped"
    assert (worker.states, worker.pieces) == (["queued"], 0)


def test_the_first_of_two_stops_says_why_and_both_are_told_once(worker):
    worker.control.stop("first")
    worker.control.stop("second")
    worker.do(1)
    assert worker.join() == "stopped"
    assert (worker.control.why, worker.states.count("stopping")) == ("first", 1)


def test_a_stop_takes_the_place_of_a_pause(worker):
    worker.control.pause()
    worker.control.stop()
    worker.do(1)
    assert worker.join() == "stopped"
    assert "paused" not in worker.states


def test_a_stop_just_as_the_gate_lets_in_stays_a_stop(toys):
    worker = Worker(toys)
    worker.states.append("running")

    def enter(give_up):
        worker.control.stop()
        return True

    worker.gate.enter = enter
    with pytest.raises(RunStopped):
        worker.control.wait()
    assert worker.states[-2:] == ["parked", "stopping"]
    assert worker.control.over() and not worker.gate.inside


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ALLOWED)
def test_an_action_without_an_object_is_refused_in_three_sentences(toys, action, state):
    said = []
    control = Control(toys.gate(), lambda: state, lambda *change: said.append(change))
    if state in ALLOWED[action]:
        getattr(control, action)()
        return
    with pytest.raises(UserError) as caught:
        getattr(control, action)()
    error = caught.value
    assert f"is {state}," in error.came and f"to {action}." in error.came
    for part in (error.came, error.can_be, error.to_do):
        assert part[0].isupper() and part.endswith(".") and len(part) > 10
    named = error.can_be.removesuffix(".").split(" while a run is ")[1]
    assert set(named.split(", ")) == ALLOWED[action]
    assert ("Queue its workflow again" in error.to_do) == (action == "resume")
    assert (control.wish, said) == ("", [])


def test_a_stopping_run_cannot_be_paused_or_resumed(worker):
    worker.control.stop()
    for action in (worker.control.pause, worker.control.resume):
        with pytest.raises(UserError, match="is stopping"):
            action()
    assert worker.control.wish == "stop"
    worker.do(1)
    assert worker.join() == "stopped"


def test_every_live_state_can_be_stopped_and_no_other():
    assert set(LIVE) == ALLOWED["stop"]


def test_leaving_and_interrupts_reach_the_gate(toys):
    worker = Worker(toys)
    worker.gate.enter(lambda: False)
    worker.control.leave()
    worker.control.interrupted()
    assert (worker.gate.inside, worker.gate.interrupts) == (False, 1)


def disturb(worker: Worker, seed: int, over: threading.Event) -> None:
    """Pauses, resumes, opens and closes at random."""
    dice = random.Random(seed)
    deeds = [
        worker.control.pause,
        worker.control.resume,
        lambda: worker.gate.set_open(False),
        lambda: worker.gate.set_open(True),
    ]
    while not over.is_set():
        with suppress(UserError):
            dice.choice(deeds)()
        if dice.random() < 0.3:
            time.sleep(0)


@pytest.mark.parametrize("seed", range(60))
def test_a_stop_is_never_lost_whoever_pauses_and_closes_meanwhile(toys, seed):
    worker, over = Worker(toys, endless=True), threading.Event()
    others = [
        threading.Thread(target=disturb, args=(worker, 2 * seed + i, over), daemon=True)
        for i in range(2)
    ]
    for thread in (*others, worker._thread):
        thread.start()
    time.sleep(random.Random(seed).random() * 0.01)
    worker.control.stop("enough")
    assert worker.join() == "stopped"
    over.set()
    for thread in others:
        thread.join(LIMIT_S)
    assert worker.states[-1] in ("stopping", "queued")
    assert worker.control.why == "enough"
    assert all(after in TRANSITIONS[before] for before, after in pairwise(worker.states))
