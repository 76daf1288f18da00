"""Runs in the background, as a script sees them: started with a prompt, followed over the routes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .client import HostClient
from .errors import Json

OVER = ("done", "stopped", "failed", "cut off")
POLL_S = 0.02


def jobs(client: HostClient) -> list[Json]:
    """The list of runs."""
    return client.get("/tandem/jobs")["jobs"]


def job(client: HostClient, name: str) -> Json:
    """The run of this name in the list."""
    return next(job for job in jobs(client) if job["name"] == name)


def ask(client: HostClient, name: str, action: str) -> Json:
    """pause, resume or stop."""
    return client.post(f"/tandem/jobs/{job(client, name)['id']}/{action}", {})


def wait_until(
    client: HostClient,
    name: str,
    reached: Callable[[Json], bool],
    *,
    timeout_s: float = 120.0,
    poll_s: float = POLL_S,
) -> Json:
    """Looks at the list every `poll_s` until `reached` says so of the run."""
    deadline = time.monotonic() + timeout_s
    while True:
        # A prompt that was queued may not have started its run yet.
        found = next((job for job in jobs(client) if job["name"] == name), None)
        if found is not None and reached(found):
            return found
        over = found is not None and found["state"] in OVER
        if over or time.monotonic() > deadline:
            raise AssertionError(f"{name} never got there: {found}")
        time.sleep(poll_s)


def wait_for_end(
    client: HostClient, name: str, *, timeout_s: float = 120.0, poll_s: float = POLL_S
) -> Json:
    """The run once it is over."""
    over = lambda found: found["state"] in OVER  # noqa: E731
    return wait_until(client, name, over, timeout_s=timeout_s, poll_s=poll_s)


def events(base: Path, name: str, kind: str) -> list[dict[str, Any]]:
    """Every event of one kind that a run has written."""
    path = base / "output" / "tandem" / name / "events.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    return [line for line in whole if line["event"] == kind]


def losses(base: Path, name: str) -> list[tuple[int, str, float, float]]:
    """(step, role, loss, gradient norm) of every step as it was made."""
    return [
        (e["step"], e["role"], e["loss"], e["grad_norm"]) for e in events(base, name, "StepDone")
    ]
