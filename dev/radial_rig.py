"""What the tests of radial attention in the host share: patched models, runs of the host's sampler. Needs ComfyUI
imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

FRAMES, STEPS = 9, 4
GRID = (FRAMES, 4, 4)
TEXT = 8
"""Tokens of the text."""


def patched(model: Any, **inputs: Any) -> tuple[Any, Any]:
    """A MODEL as the node gives it, with one dense step and one dense block unless told, and what carries its patch."""
    from ..nodes.host.radial import radial_of
    from ..nodes.radial import TandemRadialAttention

    TandemRadialAttention.hidden = SimpleNamespace(unique_id=None)
    values = {"preset": "balanced", "dense_timesteps": 1, "dense_layers": "0"}
    with torch.inference_mode():
        model = TandemRadialAttention.execute(model, **{**values, **inputs}).args[0]
    return model, radial_of(model)


def sample(
    model: Any,
    *,
    steps: int = STEPS,
    first: int | None = None,
    last: int | None = None,
    cfg: float = 1.0,
    videos: int = 1,
    sampler: str = "euler",
    size: tuple[int, int, int] = (FRAMES, 8, 8),
    shift: float = 5.0,
    text: int = TEXT,
    **cond: Any,
) -> torch.Tensor:
    """Through the host's own KSampler; the raw latent (videos, 16, frames, height, width)."""
    import comfy.samplers

    from ..nodes.host.sampling import with_shift

    noise = torch.randn(videos, 16, *size, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        model = with_shift(model, shift)
        runner = comfy.samplers.KSampler(
            model, steps=steps, device=model.load_device, sampler=sampler, scheduler="simple"
        )
        positive, negative = conditioning(size, text=text, **cond)
        return runner.sample(
            noise,
            positive,
            negative,
            cfg=cfg,
            latent_image=torch.zeros_like(noise),
            start_step=first,
            last_step=last,
            disable_pbar=True,
            seed=1,
        )


def masked(radial: Any, grid: tuple[int, ...]) -> Any:
    """An attention hook that is the slow, obvious way: a written-out mask, in double precision."""
    from einops import rearrange

    from ..radial_attention.dense import masked_attention
    from ..radial_attention.grid import TokenGrid

    layout = radial.patch.settings.layout(TokenGrid(*grid))

    def hook(func: Any, q: Any, k: Any, v: Any, heads: int, **kwargs: Any) -> torch.Tensor:
        if q.shape[1] != k.shape[1]:
            return func(q, k, v, heads, **kwargs)
        q, k, v = (rearrange(t, "b l (n d) -> b l n d", n=heads) for t in (q, k, v))
        out = masked_attention(q, k, v, layout).to(q.dtype)
        return rearrange(out, "b l n d -> b l (n d)")

    return hook


def conditioning(size: tuple[int, int, int], *, text: int = TEXT, **cond: Any) -> tuple[Any, Any]:
    context = torch.randn(1, text, 64, generator=torch.Generator().manual_seed(1))
    image = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(2))
    values = {"concat_latent_image": image, "concat_mask": torch.ones(1, 1, *size), **cond}
    return [[context, values]], [[context * 0.5, values]]


@contextmanager
def watched(radial: Any, numbers: list[int]) -> Iterator[None]:
    """While entered, the number of every block whose self-attention comes by is added to `numbers`."""
    from ..nodes.host import radial_calls

    before = radial_calls.RadialCall.attention

    def attention(self: Any, dense: Any, block: int, args: Any, named: Any) -> torch.Tensor:
        if args[0].shape[1] == args[1].shape[1]:
            assert self.radial is radial
            numbers.append(block)
        return before(self, dense, block, args, named)

    radial_calls.RadialCall.attention = attention
    try:
        yield
    finally:
        radial_calls.RadialCall.attention = before
