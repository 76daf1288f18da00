"""The runs over HTTP. Every answer is JSON; an error says what came, what can be and what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace

from aiohttp import web
from server import PromptServer

from ...training.listing import JobDetails, job_details, list_jobs
from ...wan.errors import UserError
from . import jobs
from .places import jobs_root
from .queue_again import queue_again

OVER_FOR_NOW = ("stopped", "failed", "cut off")
_ID = re.compile(r"[0-9a-f]{16}")
Handler = Callable[[web.Request], Awaitable[web.Response]]


def register_routes() -> None:
    """Adds the routes to the host's server, where there is one."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    server.routes.get("/tandem/jobs")(_answering(_list))
    server.routes.get("/tandem/jobs/{id}")(_answering(_details))
    server.routes.post("/tandem/jobs/{id}/{action:pause|resume|stop}")(_answering(_ask))


async def _list(request: web.Request) -> object:
    del request
    # Files are read in another thread: the server's loop must not wait for a disk.
    found = await asyncio.to_thread(list_jobs, jobs.runner, jobs_root())
    return {"jobs": [asdict(summary) for summary in found]}


async def _details(request: web.Request) -> object:
    return asdict(await _find(request))


async def _ask(request: web.Request) -> object:
    details = await _find(request)
    run = jobs.runner.find(details.id)
    action = request.match_info["action"]
    if run is None and action == "resume" and details.state in OVER_FOR_NOW:
        return await _resume(details)
    if run is None:
        raise _RefusedError(
            409,
            UserError(
                f"{details.name} is {details.state}: there is nothing to {action}.",
                "A run in this ComfyUI can be paused, resumed and stopped.",
                "Resume it: its workflow is queued again."
                if details.state in OVER_FOR_NOW
                else "It is finished; train under another name to do it again."
                if details.state == "done"
                else "Look at the list of runs.",
            ),
        )
    try:
        await asyncio.to_thread(jobs.ask, run, action)
    except UserError as error:
        raise _RefusedError(409, error) from error
    return asdict(await _find(request))


async def _resume(details: JobDetails) -> object:
    """Queues the workflow of a run that is over for now; what it says then is what it says of the queue."""
    try:
        prompt_id = await queue_again(jobs_root() / details.name, details.name)
    except UserError as error:
        raise _RefusedError(409, error) from error
    return asdict(replace(details, message=f"Its workflow is queued as prompt {prompt_id}."))


async def _find(request: web.Request) -> JobDetails:
    job_id = request.match_info["id"]
    if not _ID.fullmatch(job_id):
        raise _RefusedError(
            400,
            UserError(
                f"The id is {job_id[:40]!r}.",
                "An id has 16 hex digits.",
                "Take it from GET /tandem/jobs.",
            ),
        )
    details = await asyncio.to_thread(job_details, jobs.runner, jobs_root(), job_id)
    if details is None:
        raise _RefusedError(
            404,
            UserError(
                f"There is no run with the id {job_id}.",
                f"Runs lie below {jobs_root()}.",
                "Take an id from GET /tandem/jobs.",
            ),
        )
    return details


class _RefusedError(Exception):
    def __init__(self, status: int, error: UserError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


def _answering(handle: Callable[[web.Request], Awaitable[object]]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        try:
            return web.json_response(await handle(request))
        except _RefusedError as refused:
            return web.json_response({"error": _parts(refused.error)}, status=refused.status)
        except UserError as error:
            return web.json_response({"error": _parts(error)}, status=500)

    return handler


def _parts(error: UserError) -> dict[str, str]:
    return {"came": error.came, "can_be": error.can_be, "to_do": error.to_do}
