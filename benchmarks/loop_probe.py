"""A pack for the benchmarked host: how long its event loop was ever away."""

import asyncio
import time

from aiohttp import web
from server import PromptServer

TICK_S = 0.002
longest = 0.0
NODE_CLASS_MAPPINGS = {}


async def watch() -> None:
    global longest
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK_S)
        longest = max(longest, time.perf_counter() - began - TICK_S)


@PromptServer.instance.routes.get("/benchmark/stall")
async def stall(request: web.Request) -> web.Response:
    """The longest so far; counted anew from here. The first call begins to count."""
    del request
    global longest
    if not hasattr(watch, "task"):
        watch.task = asyncio.get_running_loop().create_task(watch())
    answer, longest = longest, 0.0
    return web.json_response({"longest_s": answer})
