"""TensorBoard's files hold what the events hold, also of a run that was cut off; without the package there are none."""

from __future__ import annotations

import importlib.util
import json
import logging

import pytest
from tandem_wan.training.events import HeldOut
from tandem_wan.training.tensorboard import on_the_board
from tandem_wan.training.turns import Turns

INSTALLED = importlib.util.find_spec("tensorboard") is not None
NAMES = {"loss", "rate", "grad_norm", "weight"}


class StandIn:
    """Keeps what a SummaryWriter would write."""

    def __init__(self, folder, first_step):
        self.folder, self.first_step = folder, first_step
        self.scalars, self.closed = {}, 0

    def add_scalar(self, tag, scalar_value, global_step=None):
        assert not self.closed
        self.scalars.setdefault(tag, []).append((global_step, scalar_value))

    def close(self):
        self.closed += 1


class Writers:
    """Opens one after the other."""

    def __init__(self, made=StandIn):
        self.opened, self._made = [], made

    def __call__(self, folder, first_step):
        self.opened.append(self._made(folder, first_step))
        return self.opened[-1]


@pytest.fixture
def trained(toys, runs):
    """`trained(job, writers, turns)` trains as the host does, with the board on."""

    def trained(job, open_writer, turns=None):
        job.claim()
        try:
            with on_the_board(job, open_writer):
                return runs.work(job)(turns or Turns())
        finally:
            job.release()

    return trained


def told(job):
    """{tag: points} of the run's own events."""
    found = {}
    for line in (job.folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "StepDone":
            for name in NAMES:
                curve = found.setdefault(f"{name}/{event['role']}", {})
                curve[event["step"]] = event[name]
    return {tag: sorted(curve.items()) for tag, curve in found.items()}


def test_every_step_is_a_point_of_its_expert_s_curves(runs, trained):
    writers, job = Writers(), runs.job(steps=8)
    assert trained(job, writers) == "done"
    (writer,) = writers.opened
    assert writer.scalars == told(job) and len(writer.scalars) == 2 * len(NAMES)
    assert (writer.folder, writer.first_step) == (job.folder / "tensorboard", 0)
    assert writer.closed == 1 and job.listeners == []


def test_held_out_losses_and_ratios_have_curves_of_their_own(runs):
    writers, job = Writers(), runs.job()
    with on_the_board(job, writers):
        job.listen(HeldOut(step=0, role="high_noise", loss=0.25, trained=0.125))
        job.listen(_step(1, weight_ratio=1.5, rate_ratio=None, loss_mean=0.75))
    scalars = writers.opened[0].scalars
    assert scalars["held_out/high_noise"] == [(0, 0.25)]
    assert scalars["held_out_trained/high_noise"] == [(0, 0.125)]
    assert scalars["ratio/weight_ratio"] == [(1, 1.5)] and "ratio/rate_ratio" not in scalars
    assert scalars["loss_mean/low_noise"] == [(1, 0.75)]


def test_a_run_that_goes_on_hides_what_it_makes_again(runs, toys, trained):
    writers, job = Writers(), runs.job(steps=8, save_every=3)
    events = []
    job.listeners.append(events.append)

    class Killed(BaseException):
        pass

    def stop():
        if job.step == 5:
            raise Killed
        return False

    with pytest.raises(Killed):
        trained(job, writers, toys.stop_when(stop))
    job = runs.job(steps=8, save_every=3)
    assert trained(job, writers) == "done"
    first, second = writers.opened
    assert first.closed == second.closed == 1, "closed however the run ends"
    assert (first.first_step, second.first_step) == (0, 4), "step 3 is saved, 4 and 5 are not"
    shown = {}
    for writer in writers.opened:
        for tag, points in shown.items():
            shown[tag] = [point for point in points if point[0] < writer.first_step]
        for tag, points in writer.scalars.items():
            shown.setdefault(tag, []).extend(points)
    assert shown == told(job)


def test_without_the_package_there_is_one_line_in_the_log_and_no_file(
    runs, trained, caplog, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    job = runs.job()
    with caplog.at_level(logging.INFO, "tandem.training"):
        assert trained(job, None) == "done"
    lines = [r for r in caplog.records if "TensorBoard" in r.getMessage()]
    assert [r.levelname for r in lines] == ["INFO"]
    assert not (job.folder / "tensorboard").exists()
    assert not [e for e in _findings(job) if "TensorBoard" in e]


def test_a_package_that_cannot_be_opened_costs_a_line(runs, trained, caplog):
    def broken(folder, first_step):
        raise TypeError("Descriptors cannot be created directly")

    job = runs.job()
    with caplog.at_level(logging.INFO, "tandem.training"):
        assert trained(job, broken) == "done"
    assert "Descriptors cannot be created" in caplog.text


def test_a_writer_that_breaks_is_told_once_and_asked_no_more(runs, trained, caplog):
    class Full(StandIn):
        def add_scalar(self, tag, scalar_value, global_step=None):
            if global_step == 3:
                raise OSError(28, "No space left on device")
            super().add_scalar(tag, scalar_value, global_step)

    writers, job = Writers(Full), runs.job(steps=8)
    with caplog.at_level(logging.INFO, "tandem.training"):
        assert trained(job, writers) == "done"
    (writer,) = writers.opened
    assert {step for points in writer.scalars.values() for step, _ in points} == {1, 2}
    told_of = [r for r in caplog.records if "No space left" in r.getMessage()]
    assert len(told_of) == 1 and "The run goes on" in told_of[0].getMessage()


@pytest.mark.skipif(not INSTALLED, reason="the package tensorboard is not installed")
def test_the_real_package_reads_back_what_was_measured(runs, toys, trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = runs.job(steps=8, save_every=3)

    class Killed(BaseException):
        pass

    def stop():
        if job.step == 5:
            raise Killed
        return False

    with pytest.raises(Killed):
        trained(job, None, toys.stop_when(stop))
    job = runs.job(steps=8, save_every=3)
    assert trained(job, None) == "done"
    files = sorted((job.folder / "tensorboard").iterdir())
    assert len(files) == 2
    board = EventAccumulator(str(job.folder / "tensorboard"))
    board.Reload()
    expected = told(job)
    assert set(board.Tags()["scalars"]) == expected.keys()
    for tag, points in expected.items():
        got = [(event.step, event.value) for event in board.Scalars(tag)]
        assert [step for step, _ in got] == [step for step, _ in points]
        assert [value for _, value in got] == pytest.approx([v for _, v in points], rel=1e-6)


def _step(step, **measures):
    from tandem_wan.training.events import StepDone

    return StepDone(
        step=step, steps=6, role="low_noise", loss=0.5, grad_norm=1.0, rate=0.1, seconds=0.1, **measures
    )  # fmt: skip


def _findings(job):
    lines = (job.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [e["text"] for e in map(json.loads, lines) if e["event"] == "Finding"]
