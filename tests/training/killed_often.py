"""A process that lets runs live in forks of itself, which begin at once, and kills them when it is told.

python killed_often.py ROOT      and then on its input, a life of a run a line:
    NAME operations N       killed before its file operation N, of those that Python announces; 0 is never
    NAME seconds S          killed S seconds after it began
It answers `killed`, or `done OPERATIONS SECONDS` when the run came to its end first.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).absolute().parent
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile"}
"""Audit events around which a folder looks different."""
SAVE_EVERY, PREVIEW_EVERY = 4, 5
PLAN = {
    "steps": 36,
    "save_every": SAVE_EVERY,
    "swap_every": 3,
    "batch": 2,
    "accumulate": 2,
    "dropout": 0.1,
    "caption_dropout": 0.2,
    "held_out": 2,
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs_class(toys: ModuleType) -> type:
    """Toy runs of both experts with everything that a run writes: checkpoints with an average of the weights, a
    published pair, held-out losses and previews."""
    from safetensors.torch import save_file
    from tandem_wan.training.events import CheckpointSaved, PreviewMade
    from tandem_wan.training.job import Identity, open_job
    from tandem_wan.training.loop import train
    from tandem_wan.training.monitors.held_out import HeldOutLoss, divided
    from tandem_wan.training.monitors.monitor import monitor_of
    from tandem_wan.training.plans.settings import OptimizerSettings
    from tandem_wan.training.preview import Preview
    from tandem_wan.training.preview_files import preview_file
    from tandem_wan.training.records import event_lines
    from tandem_wan.training.samples import ListedSamples

    class WholeRuns(toys.ToyRuns):
        def job(self, name):
            optimizer = OptimizerSettings(name="adamw", ema=0.9)
            plan = replace(toys.toy_plan(**PLAN), optimizer=optimizer)
            base = (("high_noise", "b1"), ("low_noise", "b2"))
            rest = {"dataset": "d1", "base": base, "vae": "v1", "text_encoder": "t1"}
            return open_job(self.root, Identity(name=name, plan=plan, **rest))

        def work(self, job, before_velocity=None):
            def save(step, trainers):
                if step > 0:
                    job.store.save(step, trainers, job.metadata("T"))
                    job.store.publish(dict.fromkeys(job.plan.roles(), step), self.root / "loras")
                    job.listen(CheckpointSaved(step=step, files={}))

            def show(step, number, latent):
                file = preview_file(job.folder, step, number, still=False)
                file.parent.mkdir(exist_ok=True)
                beside = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.mp4")
                save_file({"latent": latent.contiguous()}, beside)
                os.replace(beside, file)
                job.listen(PreviewMade(step=step, file=str(file)))

            def work(turns):
                clips = toys.toy_clips(8)
                empty = clips[0].context * 0
                shown, held = divided(ListedSamples(clips, empty_context=empty), (1, 5))
                trainers = toys.toy_trainers(job.plan, shown)
                job.step = job.store.resume(trainers)
                return train(
                    job.plan,
                    trainers,
                    save=save,
                    listen=job.listen,
                    first_step=job.step,
                    turns=turns,
                    preview=Preview(
                        every=PREVIEW_EVERY,
                        clips=clips[:1],
                        negative=empty,
                        show=show,
                        made=lambda *which: preview_file(job.folder, *which, still=False).is_file(),
                        steps=4,
                    ),
                    monitor=monitor_of(job.plan, event_lines(job.folder), job.step),
                    held_out=HeldOutLoss(job.plan, held, shown),
                )

            return work

    return WholeRuns


def live(whole_runs: type, root: Path, name: str, at: int) -> None:
    """One life of a run, in a process of its own."""
    import torch
    from tandem_wan.training.mending import mend_runs

    torch.set_num_threads(1)
    counted = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal counted
        _require_whole(event, arguments)
        if event in OPERATIONS and (event != "open" or str(arguments[0]).startswith(str(root))):
            counted += 1
            if counted == at:
                os.kill(os.getpid(), signal.SIGKILL)

    began = time.monotonic()
    sys.addaudithook(count)
    mend_runs(root, root / "loras")  # as the host does when it starts
    runs = whole_runs(root)
    run = runs.start(runs.job(name))
    assert run.finished.wait(60) and run.job.state == "done", run.error
    sys.stdout.write(f"done {counted} {time.monotonic() - began}\n")
    sys.stdout.flush()


def _require_whole(event: str, arguments: tuple) -> None:
    """A file gets the name of a LoRA when it is whole, and those of a checkpoint when all of it is."""
    if event == "open" and str(arguments[0]).endswith(".safetensors"):
        assert not arguments[2] & (os.O_WRONLY | os.O_RDWR), "a LoRA is written in place"
    if event == "os.rename" and str(arguments[1]).endswith(".safetensors"):
        before, now = map(Path, arguments[:2])
        assert before.suffix != ".safetensors"
        if now.parent.name.startswith(".step_"):
            assert (now.parent / "resume.state").is_file(), "a LoRA before all of its checkpoint"


def end_of(child: int, seconds: float) -> bool:
    """Waits for it, and kills it then; whether it was killed."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed"
            return os.WIFSIGNALED(status)
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.0005)


def main() -> None:
    load(HERE.parent / "conftest.py")
    # What the first step of a life would import.
    importlib.import_module("torch._dynamo")
    whole_runs = runs_class(load(HERE / "conftest.py"))
    for line in sys.stdin:
        name, what, number = line.split()
        child = os.fork()
        if child == 0:
            live(whole_runs, Path(sys.argv[1]), name, int(number) if what == "operations" else 0)
            os._exit(0)
        seconds = float(number) if what == "seconds" else 60.0
        if end_of(child, seconds):
            sys.stdout.write("killed\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
