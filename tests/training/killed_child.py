"""A process that says when its runs are in all the states that need one, and then waits to be killed.

python killed_child.py ROOT      each run lies in ROOT/STATE/mermaid
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).absolute().parent
SAVING_SEED = 9
"""The run of this seed is killed in the middle of a checkpoint."""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hang_in_checkpoints_of(seed: int) -> threading.Event:
    """Set when the LoRAs of a checkpoint are written and what resuming needs is not."""
    from tandem_wan.training import checkpoints

    reached, whole = threading.Event(), checkpoints._resume_tensors

    def resume_tensors(trainers):
        plan = next(iter(trainers.values())).plan
        if plan.seed == seed and sys._getframe(1).f_locals["step"] != 2:
            reached.set()
            threading.Event().wait()
        return whole(trainers)

    checkpoints._resume_tensors = resume_tensors
    return reached


def arrange(toys: ModuleType, root: Path) -> list:
    """Brings a run into each state; three steps are done, of which two are saved."""
    kept = []

    def runs(state: str, at: int, **plan):
        runs = toys.ToyRuns(root / state)
        kept.append(runs)
        return (runs, *runs.held(at=at, **plan))

    runs("running", 3)
    parked, run, hold = runs("parked", 2)
    parked.gate.set_open(False)
    hold.go.set()
    toys.eventually(lambda: run.job.state == "parked")
    _, paused_run, hold = runs("paused", 2)
    paused_run.control.pause()
    hold.go.set()
    toys.eventually(lambda: paused_run.job.state == "paused")
    _, stopping, _ = runs("stopping", 3)
    stopping.control.stop()
    saving = hang_in_checkpoints_of(SAVING_SEED)
    _, saving_run, hold = runs("saving", 2, seed=SAVING_SEED)
    saving_run.control.stop()
    hold.go.set()
    assert saving.wait(toys.LIMIT_S)
    queue = toys.ToyRuns(root / "queued")
    queue.held("ahead")
    queue.start(queue.job())
    return [*kept, queue]


def main() -> None:
    load(HERE.parent / "conftest.py")
    toys = load(HERE / "conftest.py")
    kept = arrange(toys, Path(sys.argv[1]))
    sys.stdout.write(f"{len(kept)} ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
