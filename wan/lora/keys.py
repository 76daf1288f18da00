"""From the keys of a LoRA file to the parameters of a Wan network, and to what becomes of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .changes import Cause, Change, Fault, Parameter, by_parameter, change_of
from .header import FLOATS, LoraHeader, TensorInfo, header_of
from .names import Named, is_of_image_encoder, network_names
from .parts import Part, split_key
from .settings import NO_SETTINGS, AdapterSettings
from .sizes import Shape
from .update_kinds import DIFFERENCE, KINDS, with_magnitude
from .updates import Difference, Update, UpdateSet

Keys = dict[Part, str]


class Leftover(NamedTuple):
    """A key of the file that does nothing on this network, and why."""

    key: str
    cause: Cause
    detail: str = ""
    expected: bool = False
    """Harmless: the LoRA works as its author meant it all the same."""


@dataclass(frozen=True)
class HeaderMatch:
    """A file held against one network, by names and shapes."""

    changes: tuple[Change, ...]
    num_modules: int
    """Changes in the file, matched or not."""
    leftovers: tuple[Leftover, ...]
    layout: str
    """The spelling of the keys, for the report."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Every rank that occurs, smallest first."""
        return tuple(sorted({c.rank for c in self.changes if c.rank is not None}))

    @property
    def alphas(self) -> tuple[float, ...]:
        """Every alpha that occurs, smallest first."""
        return tuple(sorted({c.alpha for c in self.changes if c.alpha is not None}))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of change that occurs, in the order of the file."""
        return tuple(dict.fromkeys(change.kind for change in self.changes))


@dataclass(frozen=True)
class MatchedLora(HeaderMatch):
    """A file held against one network, with what it does to it."""

    updates: UpdateSet


def match_lora(
    tensors: Mapping[str, torch.Tensor],
    parameters: Mapping[str, Shape],
    settings: AdapterSettings = NO_SETTINGS,
) -> MatchedLora:
    """The updates that `tensors` hold for a network; what does not fit is listed, never dropped in silence.

    parameters: every parameter of the network with its shape, not that of a quantised storage.
    settings: what else is known of alpha, for a file without it (`LoraHeader.settings`).
    """
    match = match_header(header_of(tensors, settings), parameters)
    changes, updates, leftovers = [], {}, list(match.leftovers)
    for change in match.changes:
        broken = next((key for key in change.keys.values() if not _finite(tensors[key])), None)
        if broken is not None:
            fault = Fault("not a number", f"{broken} holds NaN or infinity")
            leftovers.extend(Leftover(key, *fault) for key in change.keys.values())
        else:
            changes.append(change)
            updates[change.target] = _update(change, tensors)
    return MatchedLora(
        tuple(changes), match.num_modules, tuple(leftovers), match.layout, UpdateSet(updates)
    )


def match_header(header: LoraHeader, parameters: Mapping[str, Shape]) -> HeaderMatch:
    """The same from names and shapes alone; only numbers that are not finite stay unseen."""
    matcher = _Matcher(header, parameters)
    stems: dict[str, Keys] = {}
    for key in header.tensors:
        stem, part = split_key(key)
        if part is None:
            matcher.leave([key], Fault("unknown kind of key"))
        elif part in stems.setdefault(stem, {}):
            matcher.leave([key], Fault("layer named twice", f"{part} in two spellings"))
        else:
            stems[stem][part] = key
    for stem, keys in stems.items():
        matcher.take(stem, keys)
    return HeaderMatch(
        tuple(matcher.changes.values()),
        matcher.num_modules,
        tuple(matcher.leftovers),
        matcher.layout or "no LoRA keys",
    )


class _Matcher:
    """Collects what the layers of one file come to on one network."""

    def __init__(self, header: LoraHeader, parameters: Mapping[str, Shape]) -> None:
        self.changes: dict[str, Change] = {}
        self.leftovers: list[Leftover] = []
        self.num_modules = 0
        self.layout = ""
        self._header, self._parameters = header, parameters
        self._names = network_names(tuple(parameters))

    def leave(self, keys: Iterable[str], fault: Fault) -> None:
        """Lists keys that change nothing."""
        self.leftovers.extend(Leftover(key, *fault) for key in keys)

    def take(self, stem: str, keys: Keys) -> None:
        """Finds the changes of one layer."""
        named = self._names.find(stem)
        if not self.layout:
            self.layout = f"{named.prefix}*" if named.prefix else "bare names"
            self.layout += ", diffusers names" if named.diffusers else ""
        weight: Change | Fault | None = None
        for parameter, own in by_parameter(keys).items():
            self.num_modules += 1
            outcome = self._outcome(stem, named, parameter, own)
            if parameter == "weight":
                weight = outcome
            if "up bias" in own and isinstance(outcome, Change):
                outcome = _scaled_as(weight, outcome)
            if isinstance(outcome, Change) and outcome.target in self.changes:
                outcome = Fault("layer named twice", f"{outcome.target} in two spellings")
            if isinstance(outcome, Change):
                self.changes[outcome.target] = outcome
            else:
                self.leave(own.values(), outcome)

    def _outcome(self, stem: str, named: Named, parameter: Parameter, keys: Keys) -> Change | Fault:
        target = self._target(named, parameter)
        if target is None:
            expected = is_of_image_encoder(stem) and not self._names.has_image_encoder
            return Fault("no such layer", "a layer of Wan 2.1's image encoder" * expected, expected)
        infos: dict[Part, TensorInfo] = {
            part: self._header.tensors[key] for part, key in keys.items()
        }
        # Alpha is one number: some programs write it whole.
        strange = {info.dtype for part, info in infos.items() if part != "alpha"} - FLOATS.keys()
        if strange:
            return Fault("unknown format", f"{min(strange)} is no floating-point format")
        shapes: dict[Part, Shape] = {part: info.shape for part, info in infos.items()}
        change = change_of(target, keys, shapes, self._parameters)
        return self._with_alpha(stem, change) if isinstance(change, Change) else change

    def _target(self, named: Named, parameter: Parameter) -> str | None:
        if named.path in self._parameters:
            return named.path
        target = f"{named.path}.{parameter}"
        return target if target in self._parameters else None

    def _with_alpha(self, stem: str, change: Change) -> Change | Fault:
        key = change.keys.get("alpha")
        if change.rank is None and change.kind != DIFFERENCE and key is None:
            # PEFT scales a LoKr of whole factors too, by settings that only it writes.
            change = change._replace(rank=self._header.settings.rank(stem))
        if change.rank is None:
            return change
        if key is None:
            return change._replace(alpha=self._header.settings.alpha(stem, change.rank))
        alpha = self._header.alphas.get(key)
        if alpha is None or not math.isfinite(alpha):
            return Fault("not a number", f"{key} holds no finite number")
        return change._replace(alpha=alpha)


def _scaled_as(weight: Change | Fault | None, bias: Change) -> Change | Fault:
    """The bias of an `up` factor counts alpha / rank times, as its weight does."""
    if not isinstance(weight, Change):
        return Fault("half a pair", "the bias of a LoRA that changes no weight")
    return bias._replace(rank=weight.rank, alpha=weight.alpha)


def _update(change: Change, tensors: Mapping[str, torch.Tensor]) -> Update:
    parts: dict[Part, torch.Tensor] = {
        part: tensors[key] for part, key in change.keys.items() if part != "alpha"
    }
    if change.kind == DIFFERENCE:
        (difference,) = parts.values()
        ratio = 1.0 if change.rank is None or change.alpha is None else change.alpha / change.rank
        return Difference(difference if ratio == 1.0 else difference.float() * ratio)
    magnitude = parts.pop("magnitude", None)
    kind = next(kind for kind in KINDS if set(parts) in kind.alternatives)
    update = kind.build(parts, change.rank, change.alpha)
    return update if magnitude is None else with_magnitude(update, magnitude, change.shape)


def _finite(tensor: torch.Tensor) -> bool:
    # A sum is infinite or NaN if any of its terms is, and costs no copy.
    summed = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    return math.isfinite(summed.sum(dtype=torch.float32).item())
