"""Closes the gate whenever ComfyUI's prompt worker does anything but wait for work."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import Caching
from comfy_execution.cache_provider import register_cache_provider, unregister_cache_provider
from comfy_execution.utils import get_executing_context
from execution import PromptQueue
from server import PromptServer

from .gate import HostGate


class PromptGuard(Caching.CacheProvider):
    """A prompt's begin and end, as the host tells them to caches; nothing is cached.

    `on_prompt_start` comes after the host has cleared its interrupt flag and before any node: a Cancel while the
    prompt waits here is still there when the first node runs.
    """

    def __init__(self, gate: HostGate) -> None:
        self._gate = gate

    def should_cache(self, context: Caching.CacheContext, value: object = None) -> bool:
        del context, value
        return False

    async def on_lookup(self, context: Caching.CacheContext) -> None:
        del context

    async def on_store(self, context: Caching.CacheContext, value: Caching.CacheValue) -> None:
        del context, value

    def on_prompt_start(self, prompt_id: str) -> None:
        del prompt_id
        self._gate.close("prompt")
        self._gate.wait_until_empty()

    def on_prompt_end(self, prompt_id: str) -> None:
        del prompt_id
        self._gate.open("prompt")


class WorkerGuard:
    """All that the worker does between two waits for work: ending a prompt, freeing, unloading, collecting.

    The host has no hook for it, so `get` of its queue is wrapped while there are runs.
    """

    def __init__(self, gate: HostGate, queue: PromptQueue) -> None:
        self._gate, self._queue = gate, queue

    def install(self) -> None:
        if self._queue.currently_running:
            # This turn of the worker ends at its next `get`.
            self._gate.close("worker")
        self._inner = self._queue.get
        self._queue.get = self._get

    def remove(self) -> None:
        # If another pack has wrapped it since, ours stays below and lets everything through.
        if vars(self._queue).get("get") == self._get:
            self._queue.get = self._inner
            if getattr(self._inner, "__func__", None) is type(self._queue).get:
                del self._queue.get
        self._gate.open("worker")

    def _get(self, timeout: float | None = None) -> tuple[Any, int] | None:
        if not self._queue.queue:
            self._gate.open("worker")
        item = self._inner(timeout=timeout)
        self._gate.close("worker")
        if item is None:
            # No prompt: what comes next is freeing memory. A prompt waits in `on_prompt_start`.
            self._gate.wait_until_empty()
        return item


class Guards:
    """Both, put up and taken down together."""

    def __init__(self, gate: HostGate) -> None:
        self._gate = gate
        self._prompts = PromptGuard(gate)
        self._worker: WorkerGuard | None = None

    def put_up(self) -> None:
        if get_executing_context() is not None:
            # Runs are started in prompts, and this one has begun; its end will be told.
            self._gate.close("prompt")
        register_cache_provider(self._prompts)
        server = getattr(PromptServer, "instance", None)
        if server is not None:
            self._worker = WorkerGuard(self._gate, server.prompt_queue)
            self._worker.install()

    def take_down(self) -> None:
        unregister_cache_provider(self._prompts)
        if self._worker is not None:
            self._worker.remove()
            self._worker = None
        self._gate.open("prompt")
