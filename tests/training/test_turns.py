"""Work that is interrupted is done again from its beginning: a run does not feel who came between."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tandem_wan.training.loop import train
from tandem_wan.training.turns import RunStopped, Turns, in_turn


class Cancelled(BaseException):
    """As a host raises it inside its own operations."""


class RaisesInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise Cancelled


class Disturbed(Turns):
    """What happens to each piece of work, in order: a place of `PLACES`, "park" or nothing."""

    interrupts = (Cancelled,)

    def __init__(self, pattern):
        self.pattern = list(pattern)
        self.now = ""
        self.parks = self.hits = 0

    def over(self):
        self.now = self.pattern.pop(0) if self.pattern else ""
        return self.now == "park"

    def wait(self):
        self.parks += 1
        # Whoever comes between uses the random numbers of the process.
        torch.manual_seed(self.parks)
        torch.rand(3)

    def interrupted(self):
        self.hits += 1
        self.now = ""

    def at(self, place):
        if self.now == place:
            raise Cancelled


PLACES = ("bringing weights", "before forward", "after forward", "in backward", "late in backward")


def let_disturb(expert, turns: Disturbed) -> None:
    """Has the toy expert raise wherever `turns` says."""
    in_use, linear = expert.in_use, expert._linear

    def guarded_in_use():
        turns.at("bringing weights")
        return in_use()

    def guarded_linear(name, x):
        y = linear(name, x)
        # The gradients of the layer after this one are there when its own are asked for.
        late = turns.now == "late in backward" and name == "blocks.0.ffn.0"
        return RaisesInBackward.apply(y) if late else y

    def after(call, v):
        turns.at("after forward")
        return RaisesInBackward.apply(v) if turns.now == "in backward" else v

    expert.in_use, expert._linear, expert.after_velocity = guarded_in_use, guarded_linear, after
    expert.before_velocity = lambda call: turns.at("before forward")


def keep_gradients(trainer, seen: list) -> None:
    step = trainer.optimizer.step

    def keeping():
        seen.append([p.grad.clone() for p in trainer.adapters.parameters()])
        step()

    trainer.optimizer.step = keeping


def outcome(toys, plan, turns: Disturbed, give_back: str = "keep"):
    """Everything a run computes: losses and norms of each step, gradients, weights, optimizer states."""
    trainers, events, gradients = toys.trainers(plan), [], []
    for trainer in trainers.values():
        let_disturb(trainer.expert, turns)
        keep_gradients(trainer, gradients)
    torch.manual_seed(0)
    end = train(
        plan,
        trainers,
        save=lambda *args: None,
        listen=events.append,
        turns=turns,
        give_back=give_back,
    )
    assert end == "done"
    told = [(e.step, e.role, e.loss, e.grad_norm, e.rate) for e in events]
    states = [
        value for t in trainers.values() for s in t.optimizer.state.values() for value in s.values()
    ]
    flat = [g for step in gradients for g in step] + states
    flat += [w for role in trainers for w in toys.weights(trainers)[role]]
    return told, flat


def assert_same(ours, undisturbed) -> None:
    assert ours[0] == undisturbed[0]
    assert len(ours[1]) == len(undisturbed[1]) > 20
    pairs = zip(ours[1], undisturbed[1], strict=True)
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


@pytest.fixture(scope="module")
def undisturbed(toys):
    """`undisturbed(optimizer, accumulate)`: a plan, and the outcome of its run."""
    known = {}

    def find(optimizer: str, accumulate: int):
        key = (optimizer, accumulate)
        if key not in known:
            plan = toys.plan(optimizer, steps=6, swap_every=2, accumulate=accumulate, dropout=0.2)
            known[key] = (plan, outcome(toys, plan, Disturbed([])))
        return known[key]

    return find


@pytest.mark.parametrize("place", [*PLACES, "park"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_a_run_that_was_disturbed_is_equal_to_the_last_bit(
    toys, undisturbed, optimizer, accumulate, place
):
    plan, expected = undisturbed(optimizer, accumulate)
    # Every other piece of work, so that each expert and each place in an accumulation has its turn.
    turns = Disturbed(["", place] * (plan.steps * accumulate))
    assert_same(outcome(toys, plan, turns), expected)
    if place == "park":
        assert turns.parks >= plan.steps * accumulate // 2
    elif place != "bringing weights":  # which are brought only when the experts change
        assert turns.hits >= plan.steps * accumulate - 1


def test_weights_that_were_interrupted_on_their_way_are_brought_again(toys, undisturbed):
    plan, expected = undisturbed("adamw", 1)
    turns = Disturbed(["bringing weights", "bringing weights", ""])
    assert_same(outcome(toys, plan, turns), expected)
    assert turns.hits == 2


@given(
    pattern=st.lists(st.sampled_from(["", "", "park", *PLACES]), max_size=30),
    give_back=st.sampled_from(["keep", "offload", "free"]),
    optimizer=st.sampled_from(["adamw", "automagic"]),
    accumulate=st.sampled_from([1, 3]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_parks_and_interrupts_changes_a_bit(
    toys, undisturbed, pattern, give_back, optimizer, accumulate
):
    plan, expected = undisturbed(optimizer, accumulate)
    assert_same(outcome(toys, plan, Disturbed(pattern), give_back), expected)


def test_the_seed_is_felt_so_that_equal_runs_mean_something(toys, undisturbed):
    plan, expected = undisturbed("adamw", 3)
    assert outcome(toys, replace(plan, seed=1), Disturbed([]))[0] != expected[0]


class Stopping(Disturbed):
    def wait(self):
        raise RunStopped

    interrupted = wait


@pytest.mark.parametrize("place", [*PLACES[1:], "park"])
@pytest.mark.parametrize("piece", [0, 1, 2])
def test_a_stop_within_a_step_leaves_weights_gradients_and_experts_as_before(toys, place, piece):
    plan = toys.plan(steps=6, accumulate=3)
    trainers, done, saved = toys.trainers(plan), [], []
    turns = Stopping([""] * 6 + [""] * piece + [place])
    for trainer in trainers.values():
        let_disturb(trainer.expert, turns)
    end = train(
        plan,
        trainers,
        save=lambda step, t: saved.append((step, toys.weights(t))),
        listen=done.append,
        turns=turns,
    )
    assert (end, len(done), [step for step, _ in saved]) == ("stopped", 2, [2])
    plain = toys.trainers(plan)
    count: list = []
    train(
        plan,
        plain,
        save=lambda *args: None,
        listen=count.append,
        turns=toys.stop_when(lambda: len(count) == 2),
    )
    assert toys.same(saved[0][1], toys.weights(plain))
    for trainer in trainers.values():
        assert all(p.grad is None for p in trainer.adapters.parameters())
        assert trainer.expert.attached is None and not trainer.expert.resident


class Told(Turns):
    """Writes down what it is asked; `overs` are its answers, `no` from then on."""

    interrupts = (Cancelled,)

    def __init__(self, log, overs=()):
        self.log, self.overs = log, list(overs)

    def over(self):
        self.log.append("over")
        return self.overs.pop(0) if self.overs else False

    def wait(self):
        self.log.append("wait")

    def interrupted(self):
        self.log.append("interrupted")


def test_work_in_the_runs_own_turn_is_done_once_and_nothing_given_back():
    log = []
    result = in_turn(Told(log), lambda: log.append("work") or 7, lambda: log.append("give back"))
    assert (result, log) == (7, ["over", "work"])


def test_models_are_given_back_before_waiting_and_waiting_comes_before_work():
    log = []
    in_turn(Told(log, [True]), lambda: log.append("work"), lambda: log.append("give back"))
    assert log == ["over", "give back", "wait", "work"]


def test_interrupted_work_asks_whose_turn_it_is_before_it_is_done_again():
    log, hits = [], [1, 2]

    def work():
        log.append("work")
        if hits:
            hits.pop()
            raise Cancelled
        return "whole"

    turns = Told(log, [False, True, False])
    assert in_turn(turns, work, lambda: log.append("give back")) == "whole"
    again = ["interrupted", "over", "give back", "wait", "work"]
    assert log == ["over", "work", *again, "interrupted", "over", "work"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, RunStopped])
def test_what_is_no_interrupt_of_the_hosts_goes_through(error):
    log = []

    def work():
        raise error

    with pytest.raises(error):
        in_turn(Told(log), work)
    assert log == ["over"]


def test_a_stop_while_waiting_means_that_the_work_is_not_done():
    log = []
    turns = Told(log, [True])
    turns.wait = Stopping([]).wait
    with pytest.raises(RunStopped):
        in_turn(turns, lambda: log.append("work"))
    assert log == ["over"]


def test_a_run_that_shares_with_nobody_is_never_interrupted():
    def cancelled():
        raise Cancelled

    with pytest.raises(Cancelled):
        in_turn(Turns(), cancelled)
    assert in_turn(Turns(), lambda: 3) == 3
