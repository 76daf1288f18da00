"""One expert in use, none while the run waits, and what leaves the device then."""

from types import SimpleNamespace

import pytest
import torch
from tandem_wan.training import seat as seat_module
from tandem_wan.training.loop import train
from tandem_wan.training.seat import Seat
from tandem_wan.training.turns import RunStopped, Turns

GPU, CPU = torch.device("meta"), torch.device("cpu")


class Cancelled(BaseException):
    """As a host raises it inside its own operations."""


class Trained:
    """Writes down where it is moved."""

    def __init__(self, expert, log):
        self.expert, self.log = expert, log

    def to(self, device):
        self.log.append(("to", self.expert.role, device.type))


class Waits(Turns):
    """Parks before the pieces of work with these numbers."""

    interrupts = (Cancelled,)

    def __init__(self, log, parks=()):
        self.log, self.parks, self.asked = log, parks, 0

    def over(self):
        self.asked += 1
        return self.asked - 1 in self.parks

    def wait(self):
        self.log.append("wait")

    def interrupted(self):
        self.log.append("interrupted")


def two_experts(toys, log):
    experts = {role: toys.expert(role, log=log) for role in ("high_noise", "low_noise")}
    for expert in experts.values():
        expert.device = GPU
    return experts, {role: Trained(expert, log) for role, expert in experts.items()}


def worked(toys, order, *, parks=(), give_back="keep"):
    """The log of pieces of work for high ("h") and low ("l") noise."""
    log = []
    (high, low), trainers = (lambda e, t: (e.values(), t))(*two_experts(toys, log))
    with Seat(trainers, Waits(log, parks), give_back) as seat:
        for letter in order:
            expert = high if letter == "h" else low

            def piece(expert=expert):
                assert expert.resident
                log.append(expert.role)
                return expert.role

            assert seat.work(expert, piece) == expert.role
    return log


def moves(device):
    return [("to", "high_noise", device), ("to", "low_noise", device)]


IN, OUT, HIGH = ("in", "high_noise"), ("out", "high_noise"), "high_noise"
LOW_IN, LOW_OUT, LOW = ("in", "low_noise"), ("out", "low_noise"), "low_noise"
FREED = [("unload", HIGH), ("unload", LOW)]


def test_an_expert_stays_in_use_over_its_pieces_and_leaves_before_the_next_expert(toys):
    assert worked(toys, "hhlh") == [
        IN, HIGH, HIGH, OUT, LOW_IN, LOW, LOW_OUT, IN, HIGH, OUT
    ]  # fmt: skip


def test_nobody_is_in_use_while_the_run_waits(toys):
    assert worked(toys, "hhh", parks=[1]) == [IN, HIGH, OUT, "wait", IN, HIGH, HIGH, OUT]


def test_a_wait_before_the_first_piece_and_one_before_a_change_of_experts(toys):
    assert worked(toys, "hl", parks=[0, 1]) == [
        "wait", IN, HIGH, OUT, "wait", LOW_IN, LOW, LOW_OUT
    ]  # fmt: skip


@pytest.mark.parametrize("unloads", [[], FREED], ids=["offload", "free"])
def test_what_is_given_back_leaves_before_the_wait_and_is_there_before_the_expert(toys, unloads):
    give_back = "free" if unloads else "offload"
    away, back = [OUT, *moves("cpu"), *unloads, "wait"], [*moves("meta"), IN]
    assert worked(toys, "hhh", parks=[1, 2], give_back=give_back) == [
        IN, HIGH, *away, *back, HIGH, *away, *back, HIGH, OUT
    ]  # fmt: skip


def test_a_run_that_waits_before_its_first_piece_frees_what_others_may_have_loaded(toys):
    log = worked(toys, "h", parks=[0], give_back="free")
    assert log == [*moves("cpu"), *FREED, "wait", *moves("meta"), IN, HIGH, OUT]


def test_both_experts_are_freed_and_the_next_brought(toys):
    log = worked(toys, "hl", parks=[1], give_back="free")
    away = [OUT, *moves("cpu"), *FREED, "wait"]
    assert log == [IN, HIGH, *away, *moves("meta"), LOW_IN, LOW, LOW_OUT]


def test_without_a_wait_nothing_moves(toys):
    for give_back in ("keep", "offload", "free"):
        assert worked(toys, "hhl", give_back=give_back) == worked(toys, "hhl")


@pytest.mark.parametrize("error", [ValueError, Cancelled, RunStopped])
def test_the_seat_is_empty_afterwards_whatever_ended_the_work(toys, error):
    log = []
    experts, trainers = two_experts(toys, log)

    def piece():
        raise error

    with pytest.raises(error), Seat(trainers, Turns()) as seat:
        seat.work(experts["high_noise"], piece)
    assert log == [IN, OUT]


def test_a_stop_while_waiting_leaves_an_empty_seat(toys):
    log = []
    experts, trainers = two_experts(toys, log)
    turns = toys.stop_when(lambda: len(log) > 1)
    with pytest.raises(RunStopped), Seat(trainers, turns) as seat:
        for _ in range(3):
            seat.work(experts["high_noise"], lambda: log.append("work"))
    assert log == [IN, "work", OUT]


def test_interrupted_work_keeps_its_expert_and_interrupted_bringing_starts_anew(toys):
    log, errors = [], [Cancelled, None, Cancelled, None]
    experts, trainers = two_experts(toys, log)
    high = experts["high_noise"]
    bring = high.in_use

    def meet(what):
        log.append(what)
        if error := errors.pop(0):
            raise error

    def in_use():
        meet("bring")
        return bring()

    high.in_use = in_use
    with Seat(trainers, Waits(log, [0]), "offload") as seat:
        seat.work(high, lambda: meet("work"))
    assert log == [
        *moves("cpu"), "wait", *moves("meta"), "bring", "interrupted",
        "bring", IN, "work", "interrupted", "work", OUT,
    ]  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `clock.now` moves."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(seat_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def slow(clock, seconds, inner=None):
    def spend(*args):
        clock.now += seconds
        return inner(*args) if inner else None

    return spend


@pytest.mark.parametrize("give_back", ["keep", "offload", "free"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_steps_seconds_are_those_of_its_work_alone(toys, clock, give_back, accumulate):
    plan, events = toys.plan(steps=8, accumulate=accumulate), []
    trainers = toys.trainers(plan)
    turns = Waits([], range(0, 99, 2))
    turns.wait = slow(clock, 1000.0)
    for trainer in trainers.values():
        expert = trainer.expert
        expert.before_velocity = slow(clock, 1.0)
        expert.in_use, expert.unload = slow(clock, 100.0, expert.in_use), slow(clock, 100.0)
        trainer.to = slow(clock, 100.0, trainer.to)
    train(
        plan,
        trainers,
        save=slow(clock, 1e4),
        listen=events.append,
        turns=turns,
        give_back=give_back,
    )
    assert [event.seconds for event in events] == [accumulate] * 8
    assert clock.now > 4 * 1000


def test_work_that_was_interrupted_is_no_time_of_the_run(toys, clock):
    log, errors = [], [Cancelled, None]
    experts, trainers = two_experts(toys, log)

    def piece():
        clock.now += 2.0
        if error := errors.pop(0):
            raise error

    with Seat(trainers, Waits(log)) as seat:
        seat.work(experts["high_noise"], piece)
        assert (seat.seconds, clock.now) == (2.0, 4.0)


@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_gradients_in_the_middle_of_a_step_go_where_the_weights_go(toys, optimizer):
    """An accumulation that goes on after a wait would otherwise add across devices."""
    plan = toys.plan(optimizer, steps=4, accumulate=3)
    trainers = toys.trainers(plan)
    seen = []

    class Looks(Turns):
        def over(self):
            trainer = trainers["high_noise"]
            if trainer.adapters.parameters()[0].grad is not None:
                trainer.to(GPU)
                seen.extend(p.grad.device for p in trainer.adapters.parameters())
                raise RunStopped
            return False

    train(plan, trainers, save=lambda *args: None, listen=lambda event: None, turns=Looks())
    assert len(seen) == 6 and set(seen) == {GPU}


def test_a_run_brings_everything_to_the_device_before_its_first_step(toys):
    plan, log = toys.plan(steps=1), []
    trainers = toys.trainers(plan, log=log)
    for trainer in trainers.values():
        trainer.to = lambda device, role=trainer.role: log.append(("to", role, device.type))
    train(plan, trainers, save=lambda *args: None, listen=lambda event: None)
    assert log[:2] == moves("cpu")


@pytest.mark.parametrize("give_back", ["keep", "offload", "free"])
def test_a_run_gives_back_what_it_was_told_to(toys, give_back):
    plan, log = toys.plan(steps=2), []
    trainers = toys.trainers(plan, log=log)
    for trainer in trainers.values():
        trainer.to = lambda device, role=trainer.role: log.append(("to", role, device.type))
    turns = Waits(log, [1])
    train(
        plan,
        trainers,
        save=lambda *args: None,
        listen=lambda event: None,
        turns=turns,
        give_back=give_back,
    )
    away = log[log.index(OUT) + 1 : log.index("wait")]
    unloads = FREED if give_back == "free" else []
    assert away == ([] if give_back == "keep" else [*moves("cpu"), *unloads])


@pytest.mark.parametrize("end", ["done", "stopped", "failed"])
def test_the_models_are_given_back_before_the_last_checkpoint_is_written(toys, end):
    plan, log = toys.plan(steps=4), []
    trainers = toys.trainers(plan, log=log)

    class Leaves(Waits):
        def leave(self):
            log.append("leave")

        def wait(self):
            raise RunStopped

    def fail(call):
        if end == "failed" and call == 2:
            raise MemoryError

    trainers["high_noise"].expert.before_velocity = fail
    turns = Leaves(log, [2] if end == "stopped" else [])
    ended = None
    try:
        ended = train(
            plan,
            trainers,
            save=lambda step, t: log.append(("save", step)),
            listen=lambda event: None,
            turns=turns,
        )
    except MemoryError:
        ended = "failed"
    assert ended == end
    outs = [entry for entry in log if isinstance(entry, tuple) and entry[0] == "out"]
    assert log[-3:] == [outs[-1], "leave", ("save", 4 if end == "done" else 2)]


def test_what_brings_another_network_waits_with_everything_given_back(toys):
    """A preview is decoded between two pieces of work, and a prompt may begin just then."""
    log = []
    experts, trainers = two_experts(toys, log)
    with Seat(trainers, Waits(log, [1]), "free") as seat:
        seat.work(experts[HIGH], lambda: log.append(HIGH))
        seat.aside(lambda: log.append("decoded"))
    assert log == [IN, HIGH, OUT, *moves("cpu"), *FREED, "wait", "decoded"]
