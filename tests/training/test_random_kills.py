"""`kill -9` at any moment of a run: nothing that was saved is lost, and the run ends as if nothing had been.

TANDEM_KILLS sets how many kills there are; `make proof` has 100 of them.
"""

import importlib.util
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from tandem_wan.training.checkpoints import STATE_FILE
from tandem_wan.training.monitors.curves import curves_of, measured
from tandem_wan.training.records import event_lines
from tandem_wan.wan.lora.files import read_metadata, tandem_metadata

KILLS = int(os.environ.get("TANDEM_KILLS", "10"))
SEED = 7
PER_RUN = 6
"""How often a run is killed on average before it comes to its end."""
ROLES = ("high_noise", "low_noise")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


class Lives:
    """The process that lets runs live, and the folder in which they do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        child = Path(__file__).with_name("killed_often.py")
        self._process = subprocess.Popen(
            [sys.executable, str(child), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def life(self, name: str, what: str = "operations", number: float = 0) -> list[str]:
        """["killed"], or ["done", operations, seconds]."""
        self._process.stdin.write(f"{name} {what} {number}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()

    def end(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    lives = Lives(tmp_path_factory.mktemp("lives"))
    yield lives
    lives.end()


@pytest.fixture(scope="module")
def whole(toys):
    """The same runs as the process has them."""
    spec = importlib.util.spec_from_file_location(
        "killed_often", Path(__file__).with_name("killed_often.py")
    )
    often = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(often)
    runs = often.runs_class(SimpleNamespace(ToyRuns=toys.runs, toy_plan=toys.plan))
    return SimpleNamespace(job=lambda root, name: runs(root).job(name), often=often)


def test_a_run_killed_at_random_ends_with_the_weights_and_losses_of_an_undisturbed_one(
    lives, whole
):
    done, operations, seconds = lives.life("undisturbed")
    assert done == "done"
    draw, kills, number = random.Random(SEED), 0, 0
    while kills < KILLS:
        number += 1
        name, begins_at = f"run_{number}", [0]
        while True:
            # In every second life between two file operations, which most of all a checkpoint is made of.
            if kills % 2 and kills < KILLS:
                ended = lives.life(name, "operations", _at(draw, int(operations)))
            else:
                ended = lives.life(
                    name, "seconds", _at(draw, float(seconds)) if kills < KILLS else 60
                )
            if ended[0] == "done":
                break
            assert ended == ["killed"]
            kills += 1
            begins_at.append(_survives(whole.job(lives.root, name), whole.often.SAVE_EVERY))
        _equal(whole.job(lives.root, name), whole.job(lives.root, "undisturbed"))
        assert _beginnings(whole.job(lives.root, name)) <= set(begins_at)
    assert not [p for p in lives.root.rglob(".*") if p.name != ".lock"], "something was left"


def _at(draw: random.Random, most):
    """A moment such that a run is killed some times on its way."""
    moment = draw.uniform(0, 2 * most / PER_RUN)
    return moment if isinstance(most, float) else 1 + int(moment)


def _survives(job, save_every: int) -> int:
    """Whatever a host could list is whole; the step from which the run goes on."""
    for path in job.folder.parent.rglob("*.safetensors"):
        assert len(load_file(path)) == 3 * 3, path
        assert tandem_metadata(read_metadata(path))["step"] > 0
    names = {path.name for path in (job.folder.parent / "loras").glob("*.safetensors")}
    assert {n for n in names if n.startswith(f"{job.name}_")} <= {
        f"{job.name}_{role}.safetensors" for role in ROLES
    }
    for step in job.store.steps():
        files = [f(step, role) for f in (job.store.file, job.store.average_file) for role in ROLES]
        assert all(path.is_file() for path in files), f"a pair of step {step} is not whole"
    resumes_at = job.store.resumable_step()
    if resumes_at:
        assert load_file(job.store.folder / f"step_{resumes_at:06d}" / STATE_FILE)
    told = max((e["step"] for e in _steps(job)), default=0)
    assert told - resumes_at <= save_every, f"step {told} was told, and {resumes_at} is the last"
    for path in (job.folder / "previews").glob("*.mp4"):
        assert path.name.startswith(".") or load_file(path)
    return resumes_at


def _steps(job) -> list[dict]:
    return [line for line in event_lines(job.folder) if line["event"] == "StepDone"]


def _beginnings(job) -> set[int]:
    """The steps from which a life of the run went on."""
    steps = [0, *(line["step"] for line in _steps(job))]
    return {0} | {b - 1 for a, b in pairwise(steps) if b != a + 1}


def _equal(ours, theirs) -> None:
    assert ours.state == theirs.state == "done"
    assert ours.losses() == theirs.losses()
    assert sum(len(points) for points in ours.losses().values()) == ours.plan.steps
    assert _held_out(ours) == _held_out(theirs)
    states = [job.folder / f"step_{ours.plan.steps:06d}" / STATE_FILE for job in (ours, theirs)]
    assert _tensors(states[0]) == _tensors(states[1]), "weights, averages, optimizers"
    names = [
        sorted(path.name for path in (job.folder / "previews").iterdir()) for job in (ours, theirs)
    ]
    assert names[0] == names[1] and names[0], "a preview is missing"
    for name in names[0]:
        assert _tensors(ours.folder / "previews" / name) == _tensors(
            theirs.folder / "previews" / name
        )
    for role in ROLES:
        files = [[job.store.file, job.store.average_file] for job in (ours, theirs)]
        for one, other in zip(*files, strict=True):
            step = ours.plan.steps
            assert _tensors(one(step, role)) == _tensors(other(step, role))
        published = [
            job.folder.parent / "loras" / f"{job.name}_{role}.safetensors" for job in (ours, theirs)
        ]
        assert _tensors(published[0]) == _tensors(published[1])


def _held_out(job):
    curves = curves_of(measured(event_lines(job.folder)))
    return curves.held_out, curves.trained


def _tensors(path: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
