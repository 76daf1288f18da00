"""One call of a network under radial attention: its grid, what runs dense and why, and the attention itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from comfy.ldm.wan.model import WanModel
from einops import rearrange

from ...radial_attention.attention import Prepared, prepared
from ...radial_attention.grid import TokenGrid
from ...radial_attention.settings import layer_numbers
from ...wan.errors import UserError
from .radial_probe import probed
from .radial_record import DENSE_BLOCK, DENSE_STEP, SPARSE

if TYPE_CHECKING:
    from .radial import Radial
    from .radial_steps import Steps

CALL = "tandem_radial_call"
"""Entry of `transformer_options`: the `RadialCall` at work."""
Attention = Callable[..., torch.Tensor]


class RadialCall:
    """What was decided for one call of the network. Nothing of it is shared with another call."""

    def __init__(
        self,
        radial: Radial,
        grid: TokenGrid,
        attention: Prepared | None,
        dense_blocks: frozenset[int],
        why_dense: str = "",
    ) -> None:
        self.radial, self.grid, self.prepared = radial, grid, attention
        self.dense_blocks, self.why_dense = dense_blocks, why_dense
        self._seen: Counter[int] = Counter()

    @property
    def came_by(self) -> bool:
        """Whether any self-attention has reached the hook."""
        return bool(self._seen)

    def attention(
        self, dense: Attention, block: int, args: Sequence[Any], named: Mapping[str, Any]
    ) -> torch.Tensor:
        """Of whatever the network asks for; only self-attention over the whole grid is ever sparse."""
        q, k = args[:2]
        if q.shape[1] != k.shape[1] or q.shape[1] != self.grid.tokens:
            self._look_at_lengths(q, k)
            return dense(*args, **named)
        heads = int(named["heads"] if "heads" in named else args[3])
        plain = named.get("mask") is None and not named.get("skip_reshape") and len(args) <= 4
        why = self.why_dense
        if not plain:
            why = "with a mask or in another form"
        elif not why and block in self.dense_blocks:
            why = DENSE_BLOCK
        record = self.radial.record
        # VACE's control blocks come after the main block whose number they are called with.
        record.count(why or SPARSE, control=self._seen[block] > 0)
        self._seen[block] += 1
        if why:
            with record.timed("dense", q.device):
                out = dense(*args, **named)
        else:
            with record.timed(SPARSE, q.device):
                out = self.sparse(args[:3], heads)
        if self.radial.patch.probe and self.prepared is not None and plain:
            probed(
                self,
                block,
                args,
                heads,
                dense,
                named,
                **{"dense_out" if why else "sparse_out": out},
            )
        return out

    def sparse(
        self, qkv: Sequence[torch.Tensor], heads: int, attention: Prepared | None = None
    ) -> torch.Tensor:
        """q, k, v: (batch, tokens, heads * width), as the network has them. Returns q's shape."""
        attention = attention or self.prepared
        assert attention is not None, "decided dense"
        q, k, v = (rearrange(t, "b l (n d) -> b l n d", n=heads) for t in qkv)
        return rearrange(attention(q, k, v), "b l n d -> b l (n d)")

    def _look_at_lengths(self, q: torch.Tensor, k: torch.Tensor) -> None:
        """Another length on both sides: tokens that the grid does not account for, in a block of the network."""
        if q.shape[1] != k.shape[1]:
            return
        self.radial.record.count("of another length")
        _cannot(
            self.radial,
            f"A sequence has {q.shape[1]:,} tokens, and the grid of {named_grid(self.grid)} accounts for "
            f"{self.grid.tokens:,}: it runs dense.",
        )


def _decide(
    radial: Radial,
    network: WanModel,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    steps: Steps,
) -> RadialCall:
    """What the attention of this call does; given: the arguments of the host's `WanModel.forward` by name."""
    x, context, clip_fea = given["x"], given["context"], given.get("clip_fea")
    grid = grid_of(network, x, given.get("time_dim_concat"), given)
    patch = radial.patch
    blocks = layer_numbers(patch.settings.dense_layers, len(network.blocks))
    why, attention = _whole_call(radial, grid, context, clip_fea), None
    if not why:
        training = torch.is_grad_enabled()
        attention = prepared(
            patch.settings, grid, x.device, backend=patch.backend, training=training
        )
        radial.record.grids[grid] = attention
        if attention.density >= 1:
            why, attention = "where the mask leaves nothing out", None
        elif steps.dense(patch.settings, _sigma(given, options)):
            why = DENSE_STEP
    return RadialCall(radial, grid, attention, blocks, why)


decided = cast(Callable[..., RadialCall], torch.compiler.disable(_decide))
"""The same, which no compiler looks into."""


def grid_of(
    network: WanModel,
    x: torch.Tensor,
    time_dim_concat: torch.Tensor | None,
    named: Mapping[str, Any],
) -> TokenGrid:
    """Of a latent (batch, channels, frames, height, width) as it comes, before it is filled up to whole patches."""
    frames = x.shape[2] + (0 if time_dim_concat is None else time_dim_concat.shape[2])
    patch = network.patch_size
    before = after = 0
    if type(network) is WanModel:  # VACE's has neither
        reference = named.get("reference_latent")
        if network.ref_conv is not None and reference is not None:
            before = (reference.shape[-2] // patch[1]) * (reference.shape[-1] // patch[2])
        after = sum(
            math.prod(_patches(c.shape[-3:], patch)) for c in named.get("context_latents") or ()
        )
    frames, height, width = _patches((frames, *x.shape[-2:]), patch)
    return TokenGrid(frames, height, width, before, after)


def with_own_indices(options: dict[str, Any], blocks: int) -> None:
    """Lets every block keep its own number. In the host's own training a block is computed again in the backward pass,
    by when the options, which all blocks share, name the last one."""
    replace = dict(options.get("patches_replace") or {})
    kinds = dict(replace.get("dit") or {})
    for index in range(blocks):
        kinds["double_block", index] = _numbered(index, kinds.get(("double_block", index)))
    options["patches_replace"] = {**replace, "dit": kinds}


def _numbered(index: int, other: Callable[..., Any] | None) -> Callable[..., Any]:
    def block(args: dict[str, Any], more: dict[str, Any]) -> dict[str, torch.Tensor]:
        options = {**args["transformer_options"], "block_index": index}
        args = {**args, "transformer_options": options}
        return more["original_block"](args) if other is None else other(args, more)

    return block


def _sigma(given: Mapping[str, Any], options: Mapping[str, Any]) -> float:
    """Of the noisiest sample, read off the device once per call."""
    sigmas = options.get("sigmas")
    # The network itself is told a thousand sigmas.
    found = given["timestep"] / 1000 if sigmas is None else sigmas
    return float(found.detach().max())


def _whole_call(
    radial: Radial,
    grid: TokenGrid,
    context: torch.Tensor,
    clip_fea: torch.Tensor | None,
) -> str:
    """Why a whole call runs dense, or nothing."""
    patch = radial.patch
    if grid.tokens < patch.min_tokens:
        return f"of fewer than {patch.min_tokens:,} tokens"
    text = [context.shape[1]] + ([] if clip_fea is None else [clip_fea.shape[-2]])
    if grid.tokens in text:
        _cannot(
            radial,
            f"The video has {grid.tokens} tokens, as many as the text: the two attentions cannot be told apart, so "
            "both run dense.",
        )
        return "with as many tokens as the text"
    if patch.settings.reference and grid.before:
        _cannot(
            radial,
            f"{named_grid(grid)}: the reference layout has no tokens before the video; it runs dense.",
        )
        return "with tokens that the reference layout has no place for"
    return ""


def _cannot(radial: Radial, line: str) -> None:
    if radial.patch.strict:
        raise UserError(
            line,
            "With strict, that is an error.",
            "Turn strict off on Tandem Radial Attention to go on, or leave the node out.",
        )
    radial.record.say(line)


def _patches(cells: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-n // size) for n, size in zip(cells, patch, strict=True))


def named_grid(grid: TokenGrid) -> str:
    """As a person reads it."""
    around = "".join(
        f" and {count:,} tokens {where}"
        for count, where in ((grid.before, "before"), (grid.after, "after"))
        if count
    )
    return f"{grid.frames} x {grid.height} x {grid.width}{around}"
