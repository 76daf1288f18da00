"""One LoRA from several: the ranks of all of them side by side, each at its strength, so that nothing is lost.

Low-rank changes of one layer are concatenated. LoHa and LoKr have exact factors too, of a larger rank: LoHa's ranks
multiply, and a Kronecker product has the product of its factors' factors. They are taken where they are smaller than
the matrix. What has no factors (a full difference, DoRA, which stretches the base weight), or too many, makes the
whole change of its parameter a full difference, `.diff`. Nothing is approximated, so no singular values are cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from ..errors import UserError
from ..families import Role
from .adapters import LoraAdapter
from .files import KEY_PREFIX
from .hadamard import LoHa
from .kronecker import LoKr
from .strength import StrengthSchedule
from .updates import Update

Factors = tuple[torch.Tensor, torch.Tensor]
"""(rank, inputs) and (outputs, rank), float32."""
WeightOf = Callable[[str], torch.Tensor]
"""The base model's parameter of a name, as numbers; where no DoRA changes it, an empty tensor of its shape will do."""


class Source(NamedTuple):
    """One file on one expert, as a row of a stack puts it there."""

    name: str
    updates: Mapping[str, Update]
    """By parameter; their own `strength` does not count."""
    strength: float
    schedule: StrengthSchedule | None = None


class CombinedLora(NamedTuple):
    """What `write_safetensors` takes, and the parameters whose change is stored whole."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    whole: tuple[str, ...]


def combine(
    sources: Sequence[Source],
    weight_of: WeightOf,
    *,
    expert: Role,
    trigger: str = "",
    dtype: torch.dtype = torch.float32,
) -> CombinedLora:
    """The LoRA that does at strength 1 what all `sources` do together, for one expert.

    dtype: of the tensors; float32 keeps what the files hold, and 16 bits halve the file and round.
    Raises `UserError` for a strength that changes over the run.
    """
    fixed = [_at_one_strength(source) for source in sources]
    tensors: dict[str, torch.Tensor] = {}
    whole: list[str] = []
    for name, changes in _by_parameter(fixed).items():
        weight = weight_of(name)
        factors = _joined([_factors(update, by) for update, by in changes], weight.shape)
        if factors is not None:
            found = _low_rank_tensors(name, factors, weight.shape, dtype)
        else:
            total = torch.zeros(weight.shape)
            for update, by in changes:
                total += by * update.delta(weight).cpu()
            found = {_difference_key(name): total}
            whole.append(name)
        alpha = {key: tensor for key, tensor in found.items() if key.endswith(".alpha")}
        tensors |= {key: tensor.to(dtype).contiguous() for key, tensor in found.items()} | alpha
    return CombinedLora(tensors, _metadata(sources, expert, trigger), tuple(whole))


def blend(
    one: Source,
    other: Source,
    share: float,
    weight_of: WeightOf,
    *,
    expert: Role,
    dtype: torch.dtype = torch.float32,
) -> CombinedLora:
    """Two LoRAs as one, each at its strength: `one` counts 1 - share, `other` share (0 to 1)."""
    if not 0 <= share <= 1:
        raise UserError(
            f"share is {share:g}.",
            "It is a number from 0 (the first LoRA alone) to 1 (the second alone).",
            "For example: 0.3",
        )
    parts = [
        one._replace(strength=one.strength * (1 - share)),
        other._replace(strength=other.strength * share),
    ]
    return combine(parts, weight_of, expert=expert, dtype=dtype)


def low_rank_factors(update: Update) -> Factors | None:
    """The exact factors of an update at strength 1, or None when it has none."""
    if isinstance(update, LoraAdapter):
        return update.down.detach().float(), update.up.detach().float() * (
            update.alpha / update.rank
        )
    if isinstance(update, LoHa):
        if len(update.one) != 2 or len(update.two) != 2:
            return None
        (left_1, right_1), (left_2, right_2) = _numbers(update.one), _numbers(update.two)
        # (sum over p)(sum over q) is one sum over the pairs (p, q).
        up = (left_1[:, :, None] * left_2[:, None, :]).flatten(1)
        down = (right_1[:, None, :] * right_2[None, :, :]).flatten(0, 1)
        return down, up * (update.alpha / update.rank)
    if isinstance(update, LoKr):
        (left_1, right_1), (left_2, right_2) = (
            _two_factors(_numbers(parts)) for parts in (update.first, update.second)
        )
        ratio = 1.0 if update.rank is None or update.alpha is None else update.alpha / update.rank
        # kron(L1 R1, L2 R2) = kron(L1, L2) kron(R1, R2)
        return torch.kron(right_1, right_2), torch.kron(left_1, left_2) * ratio
    return None


def _numbers(parts: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [part.detach().float() for part in parts]


def _two_factors(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as two factors with the smallest inner width; one of them is the identity when it is stored whole."""
    if len(parts) == 2:
        return parts[0], parts[1]
    (matrix,) = parts
    outputs, inputs = matrix.shape
    if outputs <= inputs:
        return torch.eye(outputs), matrix
    return matrix, torch.eye(inputs)


def _factors(update: Update, strength: float) -> Factors | None:
    factors = low_rank_factors(update)
    return None if factors is None else (factors[0].cpu(), factors[1].cpu() * strength)


def _joined(found: Sequence[Factors | None], shape: torch.Size) -> Factors | None:
    """One pair of factors, or None when the matrix itself is as small or some change has none."""
    pairs = [pair for pair in found if pair is not None]
    if len(pairs) < len(found) or len(shape) < 2:
        return None
    rank = sum(down.shape[0] for down, _ in pairs)
    if rank * (shape[0] + shape[1:].numel()) >= shape.numel():
        return None
    return torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1)


def _low_rank_tensors(
    name: str, factors: Factors, shape: torch.Size, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    down, up = factors
    # float16 has nothing between 0 and 6e-8, where strengths and small alphas can bring a factor. A power of two is
    # taken out of it without rounding, and put into alpha.
    half = dtype == torch.float16 and bool(up.any())
    scale = 2.0 ** math.frexp(up.abs().max().item())[1] if half else 1.0
    layer = KEY_PREFIX + name.removesuffix(".weight")
    kernel = shape[2:]
    return {
        # A convolution's factors have its kernel, and ones.
        f"{layer}.lora_A.weight": down.reshape(-1, *shape[1:]),
        f"{layer}.lora_B.weight": (up / scale).reshape(*up.shape, *[1] * len(kernel)),
        f"{layer}.alpha": torch.tensor(down.shape[0] * scale),
    }


def _difference_key(name: str) -> str:
    if name.endswith(".bias"):
        return f"{KEY_PREFIX}{name.removesuffix('.bias')}.diff_b"
    return f"{KEY_PREFIX}{name.removesuffix('.weight')}.diff"


def _at_one_strength(source: Source) -> Source:
    if source.schedule is None:
        return source
    constant = source.schedule.constant
    if constant is None:
        raise UserError(
            f"{source.name} has the strength schedule {source.schedule}.",
            "A file holds one strength for the whole run, so only rows without a schedule can be saved as one LoRA.",
            "Take the schedule out of the row, or keep the row beside the saved LoRA.",
        )
    return source._replace(strength=source.strength * constant, schedule=None)


def _by_parameter(sources: Iterable[Source]) -> dict[str, list[tuple[Update, float]]]:
    changes: dict[str, list[tuple[Update, float]]] = {}
    for source in sources:
        if source.strength:
            for name, update in source.updates.items():
                changes.setdefault(name, []).append((update, source.strength))
    return changes


def _metadata(sources: Sequence[Source], expert: Role, trigger: str) -> dict[str, str]:
    entry: dict[str, object] = {
        "expert": expert,
        "combined": [{"file": s.name, "strength": s.strength} for s in sources if s.strength],
    }
    if trigger:
        entry["trigger"] = trigger
    return {"format": "pt", "tandem": json.dumps(entry)}
