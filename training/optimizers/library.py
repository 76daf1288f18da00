"""Classes of pytorch_optimizer by name, and why some of them cannot train here."""

from __future__ import annotations

import inspect
import warnings
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ...wan.errors import UserError
from .memory import packed, restore
from .names import LIBRARY

TWO_PASSES = "it computes the loss twice a step, and a step here has one pass"
HESSIAN = "it needs second derivatives, which the memory of a video model does not allow"
WRAPS = "it wraps another optimizer, which a plan cannot name"
WHOLE_MODEL = (
    "it wants the whole model and its own backward pass, and only adapters are trained here"
)
PROCESSES = "it divides its work over several processes"
GROUPS = "it needs its weights told apart by kind"
NOT_THE_WEIGHTS = (
    "the weights that it trains are not those to be saved: a checkpoint would hold the wrong ones"
)
RANDOM = "it draws random numbers, so that a resumed run would not equal an unbroken one"
REFUSED = {
    **dict.fromkeys(
        ("SAM", "BSAM", "FriendlySAM", "GSAM", "LookSAM", "WSAM", "LBFGS", "AliG"), TWO_PASSES
    ),
    **dict.fromkeys(("AdaHessian", "SophiaH"), HESSIAN),
    **dict.fromkeys(
        ("Lookahead", "OrthoGrad", "PCGrad", "SafeFP16Optimizer", "TRAC", "ScheduleFreeWrapper"),
        WRAPS,
    ),
    **dict.fromkeys(("AdaLOMO", "LOMO", "AdamMini"), WHOLE_MODEL),
    **dict.fromkeys(("DeMo", "DistributedMuon"), PROCESSES),
    **dict.fromkeys(("AdaGO", "AdaMuon", "Muon", "MuonClip", "NorMuon", "LoRARite"), GROUPS),
    **dict.fromkeys(("ScheduleFreeAdamW", "ScheduleFreeRAdam", "ScheduleFreeSGD"), NOT_THE_WEIGHTS),
    **dict.fromkeys(("Kron", "Magma"), RANDOM),
}
"""Why a class cannot be used; the others are tried on a small adapter before a run."""
_TRIAL_STEPS = 8


def is_installed() -> bool:
    """Whether the library is there."""
    return find_spec("pytorch_optimizer") is not None


def require_class(name: str, dtype: torch.dtype = torch.float32) -> type[torch.optim.Optimizer]:
    """The class of this name; raises `UserError` where there is none, or where it cannot train adapters of `dtype`
    here."""
    module = _library(name)
    if name in REFUSED:
        raise _refused(name, REFUSED[name])
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)):
        near = get_close_matches(name, usable_names(), 3)
        raise UserError(
            f"optimizer.name is {LIBRARY + name!r}, and pytorch_optimizer has no such optimizer.",
            f"Near it are {', '.join(near)}."
            if near
            else "Such as Lion, AdaBelief, CAME or SOAP; mind the capitals.",
            "Correct the name in the plan, or choose adamw.",
        )
    if trouble := _trouble(found, dtype):
        raise _refused(name, trouble)
    return found


def usable_names() -> list[str]:
    """Every optimizer of the library that is not refused by name."""
    module = _library("")
    found = (n for n in dir(module) if inspect.isclass(getattr(module, n)))
    return [
        n
        for n in found
        if issubclass(getattr(module, n), torch.optim.Optimizer) and n not in REFUSED
    ]


def library_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    *,
    lr: float,
    weight_decay: float,
    beta2: float | None = None,
) -> torch.optim.Optimizer:
    """An optimizer of the library. Its own defaults hold but for the rate, the decay and, where it is given, the memory
    of squares."""
    kind = require_class(name, groups[0]["params"][0].dtype)
    values: dict[str, Any] = {"lr": lr}
    known = inspect.signature(kind).parameters
    if "weight_decay" in known:
        values["weight_decay"] = weight_decay
    betas = known["betas"].default if "betas" in known else None
    if beta2 is not None and isinstance(betas, tuple) and len(betas) >= 2:
        values["betas"] = (betas[0], beta2, *betas[2:])
    return kind(groups, **values)


def _library(name: str) -> ModuleType:
    try:
        import pytorch_optimizer
    except ImportError as error:
        asked = "prodigy" if name == "Prodigy" else LIBRARY + name
        raise UserError(
            f"optimizer.name is {asked!r}, and pytorch_optimizer cannot be loaded ({error}).",
            "Without it there are adamw and automagic.",
            "Install it (pip install pytorch_optimizer), or choose another optimizer in the plan.",
        ) from error
    return pytorch_optimizer


def _refused(name: str, why: str) -> UserError:
    return UserError(
        f"optimizer.name is {LIBRARY + name!r}. It cannot train here: {why}.",
        "An optimizer that takes one pass a step, and whose memory can be saved, such as Lion, AdaBelief or CAME.",
        "Choose another in the plan, or adamw.",
    )


@cache
def _trouble(kind: type[torch.optim.Optimizer], dtype: torch.dtype) -> str:
    """What goes wrong when a small adapter is trained, saved and restored; empty if nothing does."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(8, 16, generator=random) * 0.1
    start = [drawn.to(dtype), torch.zeros(16, 8, dtype=dtype)]
    gradients = [
        [torch.randn(w.shape, generator=random).to(dtype) for w in start]
        for _ in range(2 * _TRIAL_STEPS)
    ]
    # While the one factor is 0, so is the other's gradient: every run begins like this.
    gradients[0][0].zero_()
    # Other random numbers on the way on than at first: what draws them must not pass for exact.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.manual_seed(1)
            whole = [nn.Parameter(w.clone()) for w in start]
            optimizer = kind(whole, lr=1e-3)  # type: ignore[call-arg] - every class of the library takes it
            _walk(optimizer, whole, gradients[:_TRIAL_STEPS])
            resumed = [nn.Parameter(w.detach().clone()) for w in whole]
            again = kind(resumed, lr=1e-3)  # type: ignore[call-arg]
            restore(again, *packed(optimizer))
            _walk(optimizer, whole, gradients[_TRIAL_STEPS:])
            torch.manual_seed(2)
            _walk(again, resumed, gradients[_TRIAL_STEPS:])
        except Exception as error:  # noqa: BLE001 - whatever a foreign class does when it is tried
            return (
                f"tried on a small adapter, it fails ({type(error).__name__}: {str(error)[:120]})"
            )
    if not all(w.isfinite().all() for w in whole):
        return "tried on a small adapter, it makes numbers that are not finite"
    if not all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True)):
        return "its memory cannot be saved whole, so that a resumed run would not equal an unbroken one"
    return ""


def _walk(
    optimizer: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    gradients: list[list[torch.Tensor]],
) -> None:
    for each in gradients:
        for weight, gradient in zip(weights, each, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
