"""The layers that a LoRA sits on, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...wan.lora.adapters import pick_layers
from .network_sizes import WAN_14B

OWN = "layers by patterns of your own"
_KINDS = {"self_attn": "self-attention", "cross_attn": "cross-attention", "ffn": "feed-forward"}


def target_words(patterns: Sequence[str]) -> str:
    """`attention and feed-forward layers` for the usual patterns. The patterns themselves stand in the plan's JSON."""
    try:
        picked = set(pick_layers(WAN_14B.layers, patterns))
    except re.error:
        return OWN
    kinds = {kind: {n for n in WAN_14B.layers if f".{kind}." in n} for kind in _KINDS}
    whole = [name for kind, name in _KINDS.items() if kinds[kind] <= picked]
    if not whole or picked != set().union(
        *(kinds[k] for k, name in _KINDS.items() if name in whole)
    ):
        return OWN
    if whole[:2] == ["self-attention", "cross-attention"]:
        whole[:2] = ["attention"]
    return f"{' and '.join(whole)} layers"
