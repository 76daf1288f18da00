"""What a person wants of radial attention on one MODEL, and how a MODEL says that it carries it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...radial_attention.settings import RadialSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "tandem_radial"
"""Of wrappers, and of the attachment, which has a `patch`."""


@dataclass(frozen=True, kw_only=True)
class RadialPatch:
    """What a person wants of radial attention on one MODEL."""

    settings: RadialSettings
    backend: str = "auto"
    min_tokens: int = 0
    """Shorter sequences see everything."""
    strict: bool = False
    """What cannot be treated is an error, instead of running dense."""
    probe: bool = False
    preset: str = "own values"

    def facts(self) -> dict[str, Any]:
        """What a LoRA that was trained with it says of it."""
        return {"preset": self.preset, "min_tokens": self.min_tokens, **asdict(self.settings)}


def radial_facts(model: ModelPatcher) -> str:
    """What decides how a MODEL computes its attention, as text for a digest: empty where it is the host's own."""
    radial = model.get_attachment(KEY)
    return "" if radial is None else json.dumps(radial.patch.facts(), sort_keys=True)
