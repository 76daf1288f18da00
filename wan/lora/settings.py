"""The settings of PEFT, for files that hold no `.alpha`: PEFT and diffusers keep alpha beside the weights."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger("tandem.lora")

METADATA_ENTRY = "lora_adapter_metadata"
"""diffusers: one table for all components, `transformer.lora_alpha` and so on, in the file's metadata."""
CONFIG_NAME = "adapter_config.json"
"""PEFT: beside adapter_model.safetensors."""
# Without a component in the files of `save_lora_adapter`, whose keys have none either.
_COMPONENT = re.compile(r"(?:(transformer(?:_2)?)\.)?(r|lora_alpha|alpha|alpha_pattern|use_rslora)")


class AdapterSettings(NamedTuple):
    """PEFT's settings by the word that starts the keys they are for; an empty word is for all keys."""

    tables: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def alpha(self, stem: str, rank: int) -> float:
        """Alpha of the layer `stem`, such that the scale is alpha / rank; `rank` itself without settings."""
        for prefix, table in self.tables:
            if not prefix or stem.startswith(f"{prefix}."):
                return _alpha(table, stem, rank)
        return float(rank)

    def rank(self, stem: str) -> int | None:
        """The rank of the layer `stem`, for tensors that do not show it."""
        for prefix, table in self.tables:
            rank = table.get("r")
            if (not prefix or stem.startswith(f"{prefix}.")) and type(rank) is int and rank > 0:
                return rank
        return None


NO_SETTINGS = AdapterSettings()


def adapter_settings(metadata: Mapping[str, str], path: Path | None = None) -> AdapterSettings:
    """The settings in a file's metadata or in PEFT's file beside it; none when there is neither."""
    if METADATA_ENTRY in metadata:
        return _by_component(_table(metadata[METADATA_ENTRY], METADATA_ENTRY))
    if path is not None and path.stem == "adapter_model":
        config = path.with_name(CONFIG_NAME)
        if config.is_file():
            return AdapterSettings((("", _table(config.read_text(encoding="utf-8"), CONFIG_NAME)),))
    return NO_SETTINGS


def _by_component(entries: Mapping[str, Any]) -> AdapterSettings:
    tables: dict[str, dict[str, Any]] = {}
    for key, value in entries.items():
        if found := _COMPONENT.fullmatch(key):
            tables.setdefault(found[1] or "", {})[found[2]] = value
    return AdapterSettings(tuple(tables.items()))


def _table(text: str, where: str) -> Mapping[str, Any]:
    try:
        table = json.loads(text)
    except ValueError as error:
        logger.warning("%s is passed over: %s", where, error)
        return {}
    return table if isinstance(table, dict) else {}


def _alpha(table: Mapping[str, Any], stem: str, rank: int) -> float:
    alpha = table.get("lora_alpha", table.get("alpha"))
    patterns = table.get("alpha_pattern")
    for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
        # As in PEFT a pattern is the end of a name; only plain names are taken, no regular expression of a file's.
        if stem == pattern or stem.endswith(f".{pattern}"):
            alpha = value
            break
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        return float(rank)
    # Rank-stabilised: alpha / sqrt(rank), said as alpha / rank.
    return float(alpha) * (math.sqrt(rank) if table.get("use_rslora") is True else 1.0)
