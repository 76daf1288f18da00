"""The LoRAs of the proof: what each is taught and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...dev.toy_clips import CHANGES, Lesson
from ...dev.toy_sampling import Lora
from ...wan.families import Role
from ...wan.miniature.family import LORA_FOLDER

TOO_LONG = 12
"""How many times more than enough the overtrained LoRA gets."""


@dataclass(frozen=True, kw_only=True)
class ProofLora:
    """One pair that is shipped, and how it came about."""

    name: str
    lesson: Lesson
    changes: Mapping[str, Any] = field(default_factory=dict)
    """To the demo's plan."""

    @property
    def plan(self) -> dict[str, Any]:
        return {**CHANGES, **self.changes}

    def file(self, role: Role) -> str:
        return f"mini_{self.name}_{role}.safetensors"

    def at(self, high: float, low: float) -> Lora:
        """The shipped pair at these strengths."""
        names = (f"{LORA_FOLDER}/{self.file(role)}" for role in ("high_noise", "low_noise"))
        first, second = names
        return Lora(high=first, low=second, strengths=(high, low))


MOTION = ProofLora(name="loop", lesson=Lesson("loop"))
LOOK = ProofLora(name="striped", lesson=Lesson("striped"), changes={"steps": 2400})
OVERTRAINED = ProofLora(
    name="loop_overtrained",
    lesson=MOTION.lesson,
    changes={"steps": TOO_LONG * CHANGES["steps"], "save_every": 960},
)
LORAS = {lora.name: lora for lora in (MOTION, LOOK, OVERTRAINED)}
