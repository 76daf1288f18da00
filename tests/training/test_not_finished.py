"""What a prompt is told that waited for a run which ended too early."""

from tandem_wan.training.events import CheckpointSaved, Finding, StepDone
from tandem_wan.training.states import State
from tandem_wan.training.troubles import not_finished


def ended(job, state: State, message):
    job.set_state("running")
    for step in (1, 2):
        event = StepDone(
            step=step, steps=4, role="high_noise", loss=0.1, grad_norm=1.0, rate=1e-4, seconds=1.0
        )
        job.listen(event)
    job.listen(CheckpointSaved(step=2, files={}))
    (job.folder / "step_000002").mkdir()
    if state == "stopped":
        job.set_state("stopping")
    job.set_state(state, message)
    return not_finished(job)


def test_a_run_that_stopped_itself_says_why_and_how_it_can_be_used(runs):
    job = runs.job(steps=4)
    text = "The high-noise expert is diverging (step 2): its mean loss rises. Lower its rate."
    job.listen(Finding(step=2, kind="warning", text=text, rule="diverging"))
    error = ended(job, "stopped", text)
    assert error.came.startswith(f"{job.name} stopped itself at step 2 of 4: The high-noise expert")
    assert "keep: high 2, low 2" in error.can_be
    assert "mode to background" in error.to_do and "unfinished to latest" in error.to_do
    assert "Lower its rate." in error.to_do and "goes on" not in str(error)


def test_a_run_that_a_person_stopped_goes_on(runs):
    error = ended(runs.job(steps=4), "stopped", "stopped by hand")
    assert "was stopped at step 2 of 4." in error.came
    assert "Queue it again and it goes on" in error.to_do
