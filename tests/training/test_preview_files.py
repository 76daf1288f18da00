"""Which previews a run has, in the list of runs and in its text."""

from __future__ import annotations

from tandem_wan.training.events import PreviewMade
from tandem_wan.training.listing import job_details, list_jobs
from tandem_wan.training.preview_files import preview_file, stored_previews
from tandem_wan.training.watch import RunWatch


def make(job, step, number, *, still=False, **words):
    file = preview_file(job.folder, step, number, still=still)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"frames")
    event = PreviewMade(step=step, number=number, file=str(file), **words)
    job.listen(event)
    return event


def test_previews_are_listed_by_step_and_number_each_file_once(runs):
    job = runs.job()
    make(job, 10, 1, clip="a.mp4")
    make(job, 10, 2, clip="a.mp4", prompt="A man waves.")
    make(job, 5, 1, clip="a.mp4")
    make(job, 10, 1, clip="b.mp4")  # the run was cut off and made step 10 again
    gone = make(job, 15, 1, still=True)
    found = stored_previews(job.folder)
    assert [(e["step"], e["number"], e["file"]) for e in found] == [
        (5, 1, "previews/step_000005_preview1.mp4"),
        (10, 1, "previews/step_000010_preview1.mp4"),
        (10, 2, "previews/step_000010_preview2.mp4"),
        (15, 1, "previews/step_000015_preview1.png"),
    ]
    assert [(e["clip"], e["prompt"]) for e in found[1:3]] == [
        ("b.mp4", ""),
        ("a.mp4", "A man waves."),
    ]
    (job.folder / "previews" / "step_000015_preview1.png").unlink()
    assert gone.step not in [e["step"] for e in stored_previews(job.folder)]


def test_the_details_of_a_run_have_them_and_its_text_says_where_they_lie(runs):
    job = runs.job()
    job.set_state("queued")
    assert list_jobs(runs.runner, runs.root)[0].text.count("previews") == 0
    make(job, 10, 1)
    make(job, 20, 1)
    details = job_details(runs.runner, runs.root, job.id)
    assert details.previews == stored_previews(job.folder) and len(details.previews) == 2
    line = f"previews up to step 20: {job.folder / 'previews'}"
    assert line in details.text.splitlines()


def test_a_run_that_is_on_says_it_as_soon_as_there_is_one(runs):
    watch, job = RunWatch(30, {}), runs.job()
    assert "previews" not in watch.text("running")
    watch(make(job, 10, 1))
    lines = watch.text("running").splitlines()
    assert f"previews up to step 10: {job.folder / 'previews'}" in lines


def test_what_an_earlier_version_made_is_listed_too(runs):
    job = runs.job()
    file = job.folder / "previews" / "step_000010.mp4"
    file.parent.mkdir()
    file.write_bytes(b"frames")
    line = (
        '{"event": "PreviewMade", "time": 1.0, "step": 10, "file": "/elsewhere/step_000010.mp4"}\n'
    )
    (job.folder / "events.jsonl").write_text(line, encoding="utf-8")
    assert stored_previews(job.folder) == [
        {"step": 10, "number": 1, "file": "previews/step_000010.mp4", "clip": "", "prompt": ""}
    ]
