"""The host's websocket as a stream of events that never blocks the host."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import websocket


class Event(NamedTuple):
    kind: str
    """The host's name for it, `progress` or `tandem.job` say; `binary` for a preview."""
    data: dict[str, Any]
    """What the host sent; a binary message lies under `bytes`."""


class EventStream:
    """Reads the websocket in a thread, so that a client that does other work loses nothing.

    The host awaits each send: a socket that nobody reads would stop its events for everyone.
    """

    def __init__(self, url: str, client_id: str, *, timeout_s: float = 30.0) -> None:
        host = urlsplit(url).netloc
        address = f"ws://{host}/ws?clientId={client_id}"
        try:
            self._socket = websocket.create_connection(
                address, timeout=timeout_s, http_no_proxy=["*"]
            )
        except websocket.WebSocketException as error:
            raise ConnectionError(f"{address}: {str(error)[:200]}") from error
        self._socket.settimeout(None)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.open = True
        threading.Thread(target=self._read, name="host events", daemon=True).start()

    def next(self, timeout_s: float) -> Event | None:
        """The next event, or None when none comes in time or the host has closed the socket."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> None:
        try:
            while message := self._socket.recv():
                self._events.put(_event(message))
        except (websocket.WebSocketException, OSError):
            pass  # closed by us or by the host: `open` says so
        self.open = False
        self._events.put(None)


def _event(message: str | bytes) -> Event:
    if isinstance(message, bytes):
        return Event("binary", {"bytes": message})
    content = json.loads(message)
    return Event(content["type"], content.get("data") or {})
