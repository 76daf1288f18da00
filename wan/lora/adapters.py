"""LoRA adapters as they run: y = W x + strength * alpha / rank * up (down x)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from .updates import LayerPass, Update, UpdateSet

# Attention and feed-forward of every block; embeddings, norms and the head stay as they are.
DEFAULT_TARGETS = (r"blocks\.\d+\.(self|cross)_attn\.(q|k|v|o)", r"blocks\.\d+\.ffn\.(0|2)")


class LoraAdapter(Update):
    """A low-rank update of one layer's weight; `down` is (rank, inputs), `up` is (outputs, rank).

    A convolution's inputs are its input channels times its kernel, flattened in that order.
    """

    def __init__(
        self, down: torch.Tensor, up: torch.Tensor, alpha: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self._alpha = float(alpha)
        self.dropout = dropout

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def alpha(self) -> float:
        return self._alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._alpha = float(alpha)

    @property
    def scale(self) -> float:
        """What the product is multiplied with: strength * alpha / rank."""
        return self.strength * self.alpha / self.rank

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        up, down = (factor.to(weight.device, torch.float32) for factor in (self.up, self.down))
        return (up @ down * (self.alpha / self.rank)).reshape(weight.shape)

    def forward(self, x: torch.Tensor, layer: LayerPass | None = None) -> torch.Tensor:
        del layer
        if self.dropout and self.training:
            x = F.dropout(x, self.dropout)
        inner, scale = F.linear(x, self.down.to(x)), self.scale
        # Times 1 changes no bit and costs an operation in every pass, and alpha is mostly the rank.
        return F.linear(inner if scale == 1 else inner * scale, self.up.to(x))


class AdapterSet(Mapping[str, LoraAdapter]):
    """The adapters of one LoRA on one expert, by layer name."""

    def __init__(self, adapters: Mapping[str, LoraAdapter]) -> None:
        self._adapters = dict(adapters)

    def __getitem__(self, layer: str) -> LoraAdapter:
        return self._adapters[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._adapters)

    def __len__(self) -> int:
        return len(self._adapters)

    def updates(self) -> UpdateSet:
        """The same adapters by the parameter that they change, as files of every kind are held."""
        return UpdateSet({f"{layer}.weight": adapter for layer, adapter in self.items()})

    def parameters(self) -> list[nn.Parameter]:
        """Every factor, in a fixed order: down, up, layer by layer."""
        return [factor for adapter in self.values() for factor in (adapter.down, adapter.up)]

    def to(self, device: torch.device) -> AdapterSet:
        """Moves the factors in place."""
        for adapter in self.values():
            adapter.to(device)
        return self

    def mean_magnitude(self) -> float:
        """Mean absolute value over all entries of all factors."""
        factors = self.parameters()
        if not factors:
            return 0.0
        with torch.no_grad():
            sums = [torch.linalg.vector_norm(p, 1, dtype=torch.float32) for p in factors]
            # One wait for the device, whatever the number of layers.
            total = math.fsum(torch.stack(sums).tolist())
        return total / sum(p.numel() for p in factors)


def pick_layers(layers: Iterable[str], targets: Iterable[str] = DEFAULT_TARGETS) -> list[str]:
    """The layers whose whole name matches one of the patterns, in their given order."""
    patterns = [re.compile(target) for target in targets]
    return [layer for layer in layers if any(p.fullmatch(layer) for p in patterns)]


def new_adapters(
    layers: Mapping[str, tuple[int, int]],
    *,
    rank: int,
    alpha: float,
    seed: int,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> AdapterSet:
    """Fresh adapters that change nothing yet: `down` random, `up` zero (Hu et al. 2021, 4.1)."""
    generator = torch.Generator().manual_seed(seed)
    return AdapterSet(
        {
            name: new_adapter(
                shape, rank=rank, alpha=alpha, generator=generator, dropout=dropout, dtype=dtype
            )
            for name, shape in layers.items()
        }
    )


def new_adapter(
    shape: tuple[int, int],
    *,
    rank: int,
    alpha: float,
    generator: torch.Generator,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> LoraAdapter:
    """One of them, for a layer of `shape` (inputs, outputs)."""
    inputs, outputs = shape
    bound = 1 / math.sqrt(inputs)
    down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
    up = torch.zeros(outputs, rank, dtype=dtype)
    return LoraAdapter(down.to(dtype), up, alpha, dropout)
