"""The settings of PEFT, for files that hold no `.alpha`: PEFT and diffusers keep alpha beside the weights."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger("tandem.lora")

METADATA_ENTRY = "lora_adapter_metadata"
"""diffusers: one table for all components, `transformer.lora_alpha` and so on, in the file's metadata."""
CONFIG_NAME = "adapter_config.json"
"""PEFT: beside adapter_model.safetensors."""
# Without a component in the files of `save_lora_adapter`, whose keys have none either.
_COMPONENT = re.compile(
    r"(?:(transformer(?:_2)?)\.)?"
    r"(r|lora_alpha|alpha|alpha_pattern|rank_pattern|use_rslora|init_lora_weights|init_weights)"
)
# What PEFT's `init_lora_weights` can say and leave the model's own weights as they are. The others (PiSSA, OLoRA,
# CorDA, LoRA-GA, LoftQ) take the factors' first product out of them.
_LEAVES_THE_MODEL = (True, False, None, "gaussian", "eva", "orthogonal", "mica", "lycoris")
_EXPRESSION = re.compile(r"[\\^$*+?{}\[\]|()]")
"""What makes a pattern more than the end of a name."""


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
            if not prefix or stem.startswith(f"{prefix}."):
                rank = _of_layer(table, "rank_pattern", stem, table.get("r"))
                if type(rank) is int and rank > 0:
                    return rank
        return None

    @property
    def foreign_start(self) -> str:
        """How training began when it first changed the model's own weights, as PEFT spells it; empty when it did not.

        PEFT saves such factors as they are unless it is told to convert them, and then its settings say `true`.
        """
        for _, table in self.tables:
            start = table.get("init_lora_weights", table.get("init_weights"))
            if start not in _LEAVES_THE_MODEL:
                return str(start)
        return ""

    @property
    def expressions(self) -> tuple[str, ...]:
        """Patterns of alpha and rank that are regular expressions; they are not followed."""
        found: dict[str, None] = {}
        for _, table in self.tables:
            for name in ("alpha_pattern", "rank_pattern"):
                found |= dict.fromkeys(filter(_EXPRESSION.search, _patterns(table, name)))
        return tuple(found)


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
    alpha = _of_layer(table, "alpha_pattern", stem, table.get("lora_alpha", table.get("alpha")))
    if type(alpha) not in (int, float) or not abs(alpha) <= sys.float_info.max:
        return float(rank)
    # Rank-stabilised: alpha / sqrt(rank), said as alpha / rank.
    return float(alpha) * (math.sqrt(rank) if table.get("use_rslora") is True else 1.0)


def _of_layer(table: Mapping[str, Any], patterns: str, stem: str, usual: Any) -> Any:  # noqa: ANN401 - JSON
    """The value of the first pattern that is the end of the layer's name, else the usual one."""
    for pattern, value in _patterns(table, patterns).items():
        # As in PEFT, but only plain names are taken: no regular expression of a file's is run.
        if stem == pattern or stem.endswith(f".{pattern}"):
            return value
    return usual


def _patterns(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    patterns = table.get(name)
    return patterns if isinstance(patterns, dict) else {}
