"""Radial attention in training: a MODEL that carries it is trained with it, by the same mask that it is sampled with.

Dense steps are those noise levels that they are in a usual schedule of 20 steps with the MODEL's own shift: training
has no steps of a sampler.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ...radial_attention.attention import prepared
from ...radial_attention.backends import choose_backend
from ...radial_attention.grid import TokenGrid
from ...wan.families import Role
from .radial import Radial, dense_blocks, radial_of, three_parts
from .radial_calls import named_grid
from .radial_steps import shift_of, usual_steps
from .wan_models import require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class TrainingAttention:
    """`wan.expert.Attention` under the settings that a MODEL carries."""

    def __init__(self, model: ModelPatcher, radial: Radial) -> None:
        self._patch = radial.patch
        self._blocks = dense_blocks(radial.patch, require_wan(model, "model"))
        self._steps = usual_steps(shift_of(model))
        self._known: tuple[torch.Tensor, tuple[bool, ...]] | None = None

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        block: int,
        grid: tuple[int, int, int],
        sigma: torch.Tensor,
    ) -> torch.Tensor:
        tokens = TokenGrid(*grid)
        if block in self._blocks or tokens.tokens < self._patch.min_tokens:
            return _dense(q, k, v)
        attention = prepared(
            self._patch.settings, tokens, q.device, backend=self._patch.backend, training=True
        )
        rows = self._dense_rows(sigma)
        if attention.density >= 1 or all(rows):
            return _dense(q, k, v)
        if not any(rows):
            return attention(q, k, v)
        # A batch of several noise levels, of which some belong to dense steps.
        each = [
            (_dense if dense else attention)(*(t[row : row + 1] for t in (q, k, v)))
            for row, dense in enumerate(rows)
        ]
        return torch.cat(each)

    def _dense_rows(self, sigma: torch.Tensor) -> tuple[bool, ...]:
        """Of each sample of a batch. Asked for by every block, and read off the device once."""
        if self._known is None or self._known[0] is not sigma:
            levels = sigma.reshape(sigma.shape[0], -1).amax(1).tolist()
            dense = partial(self._steps.dense, self._patch.settings)
            self._known = (sigma, tuple(dense(level) for level in levels))
        return self._known[1]


def training_attention(model: ModelPatcher) -> TrainingAttention | None:
    """What an expert over this MODEL computes its self-attention with; None leaves it the host's."""
    radial = radial_of(model)
    return None if radial is None else TrainingAttention(model, radial)


def require_trainable_backend(models: Mapping[Role, ModelPatcher]) -> None:
    """The backend of each MODEL has a backward pass on its device."""
    for model in models.values():
        radial = radial_of(model)
        if radial is None:
            continue
        settings = radial.patch.settings
        with three_parts():
            choose_backend(
                radial.patch.backend,
                model.load_device,
                training=True,
                reference=settings.reference,
                tile=settings.tile,
            )


def radial_metadata(models: Mapping[Role, ModelPatcher]) -> dict[str, object]:
    """What a LoRA says of the attention that it was trained with, by expert; nothing where it was dense."""
    found = {role: radial.patch.facts() for role, radial in _carried(models).items()}
    return {"radial": found} if found else {}


def radial_notes(models: Mapping[Role, ModelPatcher], grids: Collection[TokenGrid]) -> list[str]:
    """What to know before a run: the settings, and how dense the longest of the clips is; grids: theirs."""
    carried = _carried(models)
    if not carried:
        return []
    first = next(iter(carried.values()))
    notes = [
        f"{_who(carried, models)} with radial attention ({first.patch.preset}: {first.patch.settings.describe()}), "
        "previews too; sample the LoRA with the same."
    ]
    if len({str(radial.patch.facts()) for radial in carried.values()}) > 1:
        notes.append("The experts have different settings of radial attention.")
    if len(carried) < len(models):
        dense = " and ".join(role for role in models if role not in carried)
        notes.append(f"Only one expert carries radial attention: {dense} trains dense.")
    grid = max(grids, key=lambda grid: grid.tokens)
    device = next(iter(models.values())).load_device
    whole = prepared(
        first.patch.settings, grid, device, backend=first.patch.backend, training=True
    ).density
    if whole >= 1:
        notes.append(
            f"Radial attention leaves nothing out of clips of {named_grid(grid)} tokens: they train dense. It is for "
            "longer clips."
        )
    else:
        notes.append(f"Clips of {named_grid(grid)} tokens: density {whole:.3f}.")
    return notes


def _who(carried: Mapping[Role, Radial], models: Mapping[Role, ModelPatcher]) -> str:
    return "Trained" if len(carried) == len(models) else f"{next(iter(carried))} is trained"


def _carried(models: Mapping[Role, ModelPatcher]) -> dict[Role, Radial]:
    found: dict[Role, Radial] = {}
    for role, model in models.items():
        if (radial := radial_of(model)) is not None:
            found[role] = radial
    return found


def _dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
