"""How the parts of a plan are written, for messages: JSON as a person types it."""

from __future__ import annotations

import json

PATTERN = r"blocks\.\d+\.ffn\..*"
_WRITTEN = json.dumps(PATTERN)

EXAMPLES: dict[str, str] = {
    "timesteps": '{"distribution": "logit-normal"}',
    "loss": '{"weighting": "x0"}',
    "prune": '{"last": 3}',
    "lora": '{"rank": 16, "alpha": 16}',
    "alpha_phases": '{"alphas": [8, 14, 20]}',
    "optimizer": '{"name": "adamw"}',
    "high": '{"rate": 0.0001}',
    "low": '{"rate": 0.0001}',
    "phases": '[{"train": "high", "steps": 1000}, {"train": "low", "steps": 1500}]',
    "rules": '[{"rule": "overtraining", "level": "stop"}]',
    "patterns": f'[{{"pattern": {_WRITTEN}, "rank": 8}}]',
    "targets": f"[{_WRITTEN}]",
    "alphas": "[8, 14, 20]",
    "least": "[0.3, 0.4]",
    "stop_on": '["overtraining"]',
}
"""By the name of a part or of a value that is a list."""


def such_as(name: str) -> str:
    """` such as {"rank": 16}`, for a part, a list or an element of one by its dotted name; empty for a plain value."""
    inner = name.rpartition(".")[2]
    if inner.isdigit():
        return f" such as {json.dumps(json.loads(EXAMPLES[name.split('.')[0]])[0])}"
    return f" such as {EXAMPLES[inner]}" if inner in EXAMPLES else ""
