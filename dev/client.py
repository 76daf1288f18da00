"""Talks to a running ComfyUI: queue a graph, follow it, fetch what it made."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from .errors import (
    HostUnreachable,
    Json,
    PromptFailed,
    PromptInterrupted,
    PromptTimeout,
    QueueRefused,
    describe_node,
)
from .events import Event, EventStream

Graph = Mapping[str, Json]
Listener = Callable[[Event], object]

POLL_S = 0.5

# The host is on this machine or named on purpose: a proxy would only hide it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HostClient:
    """One client of the host at `url` (http://127.0.0.1:8188), with its own event stream."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.client_id = uuid.uuid4().hex
        self._stream: EventStream | None = None

    def __enter__(self) -> HostClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._stream:
            self._stream.close()
        self._stream = None

    def run(
        self, graph: Graph, on_event: Listener | None = None, *, timeout_s: float = 600.0
    ) -> Json:
        """Queue `graph`, follow it to its end, and give its history entry."""
        return self.follow(self.queue(graph), on_event, timeout_s=timeout_s)

    def queue(self, graph: Graph, extra_data: Json | None = None) -> str:
        """Queue an API-format graph; its id. A graph that would run only in part is refused too."""
        self._connect()  # before the graph, so that no event of it is missed
        body = {"prompt": graph, "client_id": self.client_id, "extra_data": extra_data or {}}
        answer = self.post("/prompt", body, accept=(200, 400))
        if answer.get("error") or answer.get("node_errors"):
            if prompt_id := answer.get("prompt_id"):
                self.cancel(prompt_id)
            raise QueueRefused(answer, graph)
        return answer["prompt_id"]

    def follow(
        self, prompt_id: str, on_event: Listener | None = None, *, timeout_s: float = 600.0
    ) -> Json:
        """Wait until the prompt ends; its history entry, also when it has ended long ago.

        `on_event` gets each event of the prompt, and those that belong to none. Messages of nodes
        that blocked their outputs, which the host keeps nowhere, are in the entry's `blocked`.
        """
        stream, deadline = self._connect(), time.monotonic() + timeout_s
        blocked: list[str] = []
        while (entry := self._ended(prompt_id, stream, on_event, blocked)) is None:
            if time.monotonic() > deadline:
                raise PromptTimeout(
                    f"Prompt {prompt_id} has not finished in {timeout_s:g} s. Give it more time "
                    "(timeout_s), or see the host's log for where it hangs; it still runs."
                )
        _raise_for(entry)
        return {**entry, "blocked": blocked}

    def _ended(
        self, prompt_id: str, stream: EventStream, on_event: Listener | None, blocked: list[str]
    ) -> Json | None:
        """Take one event; the history entry once it says, or silence shows, that it is over."""
        event = stream.next(POLL_S) if stream.open else time.sleep(POLL_S)
        if event is None:
            return self._finished_entry(prompt_id)
        if event.data.get("prompt_id") not in (None, prompt_id):
            return None
        if on_event:
            on_event(event)
        if event.data.get("exception_type") == "ExecutionBlocked":
            blocked.append(event.data["exception_message"])
        over = event.kind == "executing" and event.data.get("node") is None
        return self.history(prompt_id) if over else None

    def _finished_entry(self, prompt_id: str) -> Json | None:
        """The history entry; None while the prompt waits or runs."""
        waiting = self.get("/queue")  # asked first: what leaves it is in the history at once
        entry = self.history(prompt_id)
        known = [item[1] for items in waiting.values() for item in items]
        if entry is None and prompt_id not in known:
            raise PromptInterrupted(
                f"before it ran: {prompt_id} is not in the host's queue any more"
            )
        return entry

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop what runs; with an id, only if it is that prompt."""
        self.post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or stop it if it runs."""
        self.post(f"/api/jobs/{prompt_id}/cancel", {})

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        self.post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    def history(self, prompt_id: str) -> Json | None:
        """What the host keeps of a finished prompt: prompt, outputs, status."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def object_info(self, node_type: str | None = None) -> Json:
        return self.get(f"/object_info/{quote(node_type)}" if node_type else "/object_info")

    def models(self, folder: str) -> list[str]:
        return self.get(f"/models/{quote(folder)}")

    def upload(self, path: Path, subfolder: str = "") -> str:
        """Put a file of any kind into the host's input folder; the name that loaders take."""
        boundary = uuid.uuid4().hex
        fields = {"subfolder": subfolder, "overwrite": "true", "type": "input"}
        body = _multipart(fields, path, boundary)
        content_type = f"multipart/form-data; boundary={boundary}"
        saved = json.loads(self._send("/upload/image", body, content_type))
        return "/".join(filter(None, (saved["subfolder"], saved["name"])))

    def download(self, file_entry: Json) -> bytes:
        """The content of one file of an entry's outputs: {filename, subfolder, type}."""
        query = {name: file_entry.get(name, "") for name in ("filename", "subfolder", "type")}
        return self._send(f"/view?{urlencode(query)}")

    def get(self, path: str) -> Any:
        """The JSON answer to GET `path`."""
        return json.loads(self._send(path))

    def post(self, path: str, body: Json, *, accept: tuple[int, ...] = (200,)) -> Json:
        """The JSON answer to POST `path`, {} when it is empty."""
        answer = self._send(path, json.dumps(body).encode(), "application/json", accept)
        return json.loads(answer) if answer else {}

    def _send(
        self,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        accept: tuple[int, ...] = (200,),
    ) -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with _opener.open(request, timeout=self.timeout_s) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            content = error.read()
            if error.code in accept:
                return content
            text = content.decode(errors="replace")[:500]
            raise HostUnreachable(
                f"{self.url}{path} answered {error.code} {error.reason}: {text}. See the host's log for the cause."
            ) from error
        except OSError as error:
            raise HostUnreachable(
                f"{self.url}{path} gave no answer ({error}; {self.timeout_s:g} s is the limit). "
                "Start the host there, or correct the address."
            ) from error

    def _connect(self) -> EventStream:
        if self._stream is None or not self._stream.open:
            try:
                self._stream = EventStream(self.url, self.client_id, timeout_s=self.timeout_s)
            except OSError as error:
                raise HostUnreachable(
                    f"{self.url} takes no websocket ({error}). Start the host there, or correct the address."
                ) from error
        return self._stream


def _raise_for(entry: Json) -> None:
    """Raise what the messages of a finished prompt tell; its `status_str` can be a stale one."""
    graph = entry["prompt"][2]
    for kind, event in entry["status"]["messages"]:
        if kind == "execution_error":
            raise PromptFailed(event, describe_node(event["node_id"], graph))
        if kind == "execution_interrupted":
            node_id = event["node_id"]
            raise PromptInterrupted(f"in {describe_node(node_id, graph)}", node_id)


def _multipart(fields: Mapping[str, str], path: Path, boundary: str) -> bytes:
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    file_head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (head + file_head).encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
