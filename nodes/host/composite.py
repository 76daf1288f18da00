"""All updates of a MODEL as they run: beside the layers of one network, never in its weights.

A layer computes what it computed before, in whatever format its weights are stored, and every change is added to
that. So no change sees another one, and their order does not count.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from comfy.ldm.wan.model import WanAttentionBlock
from comfy.model_management import cast_to
from torch import nn
from torch.utils.hooks import RemovableHandle

from ...wan.lora.adapters import LoraAdapter
from ...wan.lora.updates import LayerPass, Update
from .effects import Effect, effect_of


class Entry(NamedTuple):
    """An update, and the number of the file that it comes from."""

    update: Update
    file: int


class Composite:
    """The updates of several files on one network, from `install` to `remove`.

    The factors run on `device`; those that are in training stay the very parameters that the optimizer holds.
    """

    def __init__(
        self, network: nn.Module, files: Sequence[Mapping[str, Update]], device: torch.device
    ) -> None:
        self._sites: list[tuple[nn.Module, LinearSite | WholeSite]] = []
        self._handles: list[RemovableHandle] = []
        self._factors: tuple[float, ...] = ()
        # Normal tensors, so that gradients can flow beside them, also when a prompt loads the model.
        with torch.inference_mode(False), torch.no_grad():
            for name, entries in _by_parameter(files).items():
                path, _, parameter = name.rpartition(".")
                module = network.get_submodule(path)
                if parameter == "weight" and _is_linear(module):
                    self._sites.append((module, LinearSite(entries, device)))
                else:
                    shape = getattr(module, parameter).shape
                    self._sites.append((module, WholeSite(parameter, shape, entries, device)))
        # DoRA looks at what the layer alone gives, so a change of the layer's bias comes after it.
        self._sites.sort(key=lambda site: isinstance(site[1], WholeSite))
        self.set_factors([1.0] * len(files))

    def install(self) -> None:
        for module, site in self._sites:
            self._handles += site.install(module)

    def remove(self) -> None:
        for handle in reversed(self._handles):
            handle.remove()
        self._handles.clear()
        for module, site in self._sites:
            site.restore(module)

    def set_factors(self, factors: Sequence[float]) -> None:
        """What the strengths of each file are multiplied with from now on."""
        if tuple(factors) == self._factors:
            return
        self._factors = tuple(factors)
        # Normal tensors are rewritten in either mode; new ones must not become inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            for _, site in self._sites:
                site.set_factors(factors)


class LinearSite:
    """The updates of one linear layer's weight."""

    def __init__(self, entries: Sequence[Entry], device: torch.device) -> None:
        low_rank: list[tuple[LoraAdapter, int]] = []
        self._single: list[tuple[Update, float, int]] = []
        in_training: list[Update] = []
        for update, file in entries:
            if any(factor.requires_grad for factor in update.parameters()):
                in_training.append(update)
            elif isinstance(update, LoraAdapter):
                low_rank.append((update, file))
            else:
                self._single.append((_on_device(update, device), update.strength, file))
        self.product = LowRankProduct(low_rank, device) if low_rank else None
        self.updates = [update for update, _, _ in self._single] + in_training
        self._needs_layer = any(update.needs_layer for update in self.updates)

    def set_factors(self, factors: Sequence[float]) -> None:
        if self.product is not None:
            self.product.set_factors(factors)
        for update, strength, file in self._single:
            update.strength = strength * factors[file]

    def install(self, module: nn.Module) -> list[RemovableHandle]:
        return [module.register_forward_hook(self._add)]

    def restore(self, module: nn.Module) -> None:
        """Nothing in the module was changed."""

    def _add(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        x, base = inputs[0], output
        if self.product is not None:
            output = self.product.added(x, output)
        layer = _layer_pass(module, base) if self._needs_layer else None
        for update in self.updates:
            if update.strength:
                output = output + update(x, layer)
        return output


class LowRankProduct:
    """Low-rank updates of one layer as one product, whatever their number.

    Their `down` stand on top of each other (ranks, inputs), their `up` side by side (outputs, ranks), and `scale`
    (ranks) holds strength * alpha / rank of each: a schedule rewrites nothing else.
    """

    def __init__(self, adapters: Sequence[tuple[LoraAdapter, int]], device: torch.device) -> None:
        """Adapters, and the number of the file that each comes from."""
        self.down = _joined([adapter.down for adapter, _ in adapters], device, dim=0)
        self.up = _joined([adapter.up for adapter, _ in adapters], device, dim=1)
        self.scale = torch.zeros(self.down.shape[0], device=device)
        self._scales = [(file, adapter.scale, adapter.rank) for adapter, file in adapters]
        self._idle = True
        if len(adapters) > 1:
            self._share_factors([adapter for adapter, _ in adapters])

    def set_factors(self, factors: Sequence[float]) -> None:
        values = [
            value for file, scale, rank in self._scales for value in [scale * factors[file]] * rank
        ]
        self._idle = not any(values)
        self.scale.copy_(torch.tensor(values))

    def added(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """`output` of the layer for `x`, and the updates: one matrix product down and one up, in x's dtype."""
        if self._idle:
            return output
        inner = nn.functional.linear(x, self.down.to(x)) * self.scale
        up = self.up.to(output)
        # Added inside the product: no tensor of the output's size beside the sum itself.
        sums = torch.addmm(
            output.reshape(-1, output.shape[-1]), inner.to(up).reshape(-1, up.shape[1]), up.T
        )
        return sums.view_as(output)

    def _share_factors(self, adapters: Sequence[LoraAdapter]) -> None:
        """Where the files' own factors lie on the same device, they become views of the joined ones: no copy."""
        start = 0
        for adapter in adapters:
            rows = slice(start, start + adapter.rank)
            start += adapter.rank
            for name, view in (("down", self.down[rows]), ("up", self.up[:, rows])):
                own = adapter.get_parameter(name)
                if (own.device, own.dtype) == (view.device, view.dtype):
                    adapter._parameters[name] = nn.Parameter(view, requires_grad=False)


class WholeSite:
    """The updates of any other parameter (bias, norm, modulation, patch embedding), summed: all of them are small."""

    def __init__(
        self,
        parameter: str,
        shape: torch.Size,
        entries: Sequence[Entry],
        device: torch.device,
    ) -> None:
        self._parameter = parameter
        self._strengths = [(entry.file, entry.update.strength) for entry in entries]
        like = torch.empty(shape, device=device)
        self._deltas = torch.stack([entry.update.delta(like) for entry in entries])
        self.change = torch.zeros(shape, device=device)
        self._idle = True
        self._base: nn.Parameter | None = None

    def set_factors(self, factors: Sequence[float]) -> None:
        values = [strength * factors[file] for file, strength in self._strengths]
        self._idle = not any(values)
        self.change = torch.tensordot(torch.tensor(values).to(self._deltas), self._deltas, dims=1)

    def install(self, module: nn.Module) -> list[RemovableHandle]:
        effect = effect_of(module, self._parameter)
        if effect is not None:
            return [module.register_forward_hook(self._adding(effect))]
        if isinstance(module, WanAttentionBlock) and self._parameter == "modulation":
            # The block adds its modulation to `e`, and that is an argument: it is there again when a block is
            # recomputed for its gradients, where hooks are not called.
            return [module.register_forward_pre_hook(self._add_to_e, with_kwargs=True)]
        return [
            module.register_forward_pre_hook(self._swap),
            module.register_forward_hook(self._swap_back, always_call=True),
        ]

    def restore(self, module: nn.Module) -> None:
        """An interrupt of the host ends a forward pass without its hooks."""
        if self._base is not None:
            module._parameters[self._parameter] = self._base
            self._base = None

    def _adding(
        self, effect: Effect
    ) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
        def add(
            module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
            del module
            if self._idle:
                return output
            x = inputs[0]
            return output + effect(x, self.change.to(x)).to(output)

        return add

    def _add_to_e(
        self, module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]
    ) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        del module
        if self._idle:
            return args, kwargs
        if "e" in kwargs:
            return args, {**kwargs, "e": kwargs["e"] + self.change.to(kwargs["e"])}
        x, e, *others = args
        return (x, e + self.change.to(e), *others), kwargs

    def _swap(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        del inputs
        self.restore(module)
        if self._idle:
            return
        base = getattr(module, self._parameter)
        self._base = base
        changed = nn.Parameter((base + self.change.to(base.device)).to(base), requires_grad=False)
        module._parameters[self._parameter] = changed

    def _swap_back(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        del inputs, output
        self.restore(module)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in the same storage as a normal tensor: autograd refuses those that a prompt made."""
    if not tensor.is_inference():
        return tensor.detach()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )


def _by_parameter(files: Sequence[Mapping[str, Update]]) -> dict[str, list[Entry]]:
    entries: dict[str, list[Entry]] = {}
    for number, updates in enumerate(files):
        for name, update in updates.items():
            entries.setdefault(name, []).append(Entry(update, number))
    return entries


def _is_linear(module: nn.Module) -> bool:
    # The host's quantised layers are not `nn.Linear`.
    return isinstance(getattr(module, "in_features", None), int)


def _joined(factors: Sequence[torch.Tensor], device: torch.device, dim: int) -> torch.Tensor:
    dtype = _common_dtype(factors)
    moved = [plain(factor.to(device, dtype)) for factor in factors]
    return moved[0] if len(moved) == 1 else torch.cat(moved, dim)


def _common_dtype(factors: Sequence[torch.Tensor]) -> torch.dtype:
    """What holds the numbers of all factors as they are; float8 formats are not promoted by torch."""
    dtypes = {factor.dtype for factor in factors}
    if len(dtypes) == 1:
        return dtypes.pop()
    # Every float8 number is a float16 and a bfloat16 number, too.
    wide = [dtype for dtype in dtypes if dtype.itemsize > 1]
    return functools.reduce(torch.promote_types, wide) if wide else torch.float16


def _on_device(update: Update, device: torch.device) -> Update:
    """The update with its factors on `device`; where they lie there already, they are shared."""
    moved = {
        id(factor): nn.Parameter(plain(factor.to(device)), requires_grad=False)
        for factor in update.parameters()
    }
    return copy.deepcopy(update, moved)


def _layer_pass(module: nn.Module, output: torch.Tensor) -> LayerPass:
    """What the weight of the layer makes of its input, and of another one; quantised weights stay as they are."""
    bias = _bias(module, output)

    def again(x: torch.Tensor) -> torch.Tensor:
        return module.forward(x) - bias

    return LayerPass(output - bias, again)


def _bias(module: nn.Module, output: torch.Tensor) -> torch.Tensor | float:
    bias = getattr(module, "bias", None)
    if bias is None:
        return 0.0
    bias = cast_to(bias, output.dtype, output.device)
    for patch in getattr(module, "bias_function", ()):
        bias = patch(bias)
    return bias
