"""What can go wrong between a client and the host."""

# ruff: noqa: N818 (the names say what happened)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

MAX_DETAILS = 600


class HostError(Exception):
    """The host did not do what was asked."""


class HostFailed(HostError):
    """The host's process did not start, or does not show what it should."""


class HostUnreachable(HostError):
    """Nothing answers at the host's address, or not in time, or with an error."""


class PromptTimeout(HostError):
    """A prompt has not finished in the time given."""


class QueueRefused(HostError):
    """The host refused a graph, or a part of it, before anything ran."""

    def __init__(self, answer: Json, graph: Mapping[str, Json]) -> None:
        self.error: Json = answer.get("error") or {}
        self.node_errors: dict[str, Json] = answer.get("node_errors") or {}
        super().__init__("\n".join(_refusal_lines(self.error, self.node_errors, graph)))


class PromptFailed(HostError):
    """A node raised an error."""

    def __init__(self, event: Json, node: str) -> None:
        self.node_id: str = event["node_id"]
        self.node_type: str = event["node_type"]
        self.message: str = event["exception_message"].strip()
        self.exception_type: str = event["exception_type"]
        self.traceback: str = "".join(event["traceback"])
        super().__init__(f"{node} raised {self.exception_type}: {self.message}\n{self.traceback}")


class PromptInterrupted(HostError):
    """A prompt was cancelled while it ran, or (`node_id` is None) while it waited."""

    def __init__(self, where: str, node_id: str | None = None) -> None:
        self.node_id = node_id
        super().__init__(f"The prompt was cancelled {where}.")


def describe_node(node_id: str, graph: Mapping[str, Json]) -> str:
    """`node 3 "Save it" (SaveImage)`: what a reader needs to find it in the graph."""
    node = graph.get(node_id) or {}
    title = (node.get("_meta") or {}).get("title")
    named = f' "{title}"' if title else ""
    return f"node {node_id}{named} ({node.get('class_type', 'unknown class')})"


def _refusal_lines(
    error: Json, node_errors: Mapping[str, Json], graph: Mapping[str, Json]
) -> list[str]:
    headline = error.get("message") or "Some of its outputs failed validation"
    lines = [f"The host refused the graph: {headline}"]
    for node_id, found in node_errors.items():
        node = describe_node(node_id, graph)
        lines += [f"  {node}: {_one_line(reason)}" for reason in found["errors"]]
    if not node_errors and error.get("details"):
        lines.append(f"  {_shortened(error['details'])}")
    return [*lines, "Change the inputs that are named, then queue it again."]


def _one_line(reason: Json) -> str:
    details = _shortened(reason.get("details") or "")
    return f"{reason['message']}: {details}" if details else reason["message"]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DETAILS else f"{text[:MAX_DETAILS]} ..."
