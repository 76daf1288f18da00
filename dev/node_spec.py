"""What the host says of a node type, and what the browser makes of it: sockets, widgets and heights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDGET_TYPES = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")
SEEDS = ("seed", "noise_seed")
SLOT_PX, WIDGET_PX, TEXT_AREA_PX = 20, 24, 54
SLOTS_MARGIN_PX, WIDGETS_MARGIN_PX = 6, 8


@dataclass(frozen=True)
class NodeSpec:
    """One entry of `GET /object_info`."""

    info: Mapping[str, Any]

    @property
    def inputs(self) -> dict[str, str]:
        """The inputs' types by name, in the order of the schema."""
        return {
            name: "COMBO" if isinstance(entry[0], list) else entry[0]
            for name, entry in self._entries.items()
        }

    @property
    def outputs(self) -> dict[str, str]:
        return dict(zip(self.info["output_name"], self.info["output"], strict=True))

    @property
    def defaults(self) -> dict[str, Any]:
        found = {
            name: self._options(name).get("default") for name in filter(self.is_widget, self.inputs)
        }
        return {name: value for name, value in found.items() if value is not None}

    def slot(self, output: str) -> int:
        return list(self.outputs).index(output)

    def is_optional(self, name: str) -> bool:
        return name in self.info["input"].get("optional", {})

    def is_widget(self, name: str) -> bool:
        """Whether the input is a field on the node, not a socket that waits for a link."""
        kind = self.inputs[name]
        return kind in WIDGET_TYPES or kind.startswith("COMFY_DYNAMICCOMBO")

    def companions(self, name: str) -> list[Any]:
        """Values of the widgets that the browser puts behind this one: what a seed does next, upload."""
        options = self._options(name)
        if options.get("control_after_generate") or (name in SEEDS and self.inputs[name] == "INT"):
            return ["fixed"]
        return ["image"] if options.get("image_upload") else []

    @property
    def height_px(self) -> int:
        """What the browser's `computeSize` gives for sockets and widgets."""
        widgets = [name for name in self.inputs if self.is_widget(name)]
        slots = max(len(self.inputs) - len(widgets), len(self.outputs))
        height = slots * SLOT_PX + SLOTS_MARGIN_PX
        if widgets:
            height += sum(map(self._widget_px, widgets)) + WIDGETS_MARGIN_PX
        return height

    def _widget_px(self, name: str) -> int:
        own = TEXT_AREA_PX if self._options(name).get("multiline") else WIDGET_PX
        return own + WIDGET_PX * len(self.companions(name))

    @property
    def _entries(self) -> dict[str, Any]:
        return {**self.info["input"].get("required", {}), **self.info["input"].get("optional", {})}

    def _options(self, name: str) -> Mapping[str, Any]:
        entry = self._entries[name]
        return entry[1] if len(entry) > 1 else {}
