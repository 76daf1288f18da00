"""Radial attention on a MODEL: a clone whose self-attention leaves out what is far apart in time.

Three seams of the host, all of them the clone's own. A wrapper of the sampler learns the schedule; a wrapper of the
network decides once per call what is to happen, and leaves it in that call's own options; the attention hook does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import comfy.model_management
import torch
from comfy.ldm.wan.model import VaceWanModel, WanModel
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import get_executing_context

from ...radial_attention.backends import choose_backend
from ...radial_attention.errors import BackendError, SettingsError
from ...radial_attention.settings import any_sparse_layer, layer_numbers
from ...wan.errors import UserError
from .radial_calls import CALL, RadialCall, decided, with_own_indices
from .radial_patch import KEY, RadialPatch
from .radial_record import RadialRecord
from .radial_steps import Steps, shift_of, steps_of, usual_steps
from .strengths import SIGMAS_KEY
from .wan_models import require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.patcher_extension import WrapperExecutor

STEPS = "tandem_radial_steps"
"""Entry of `transformer_options`: the `Steps` of the sampler at work."""
HOOK = "optimized_attention_override"
ARGUMENTS = ("x", "timestep", "context", "clip_fea", "time_dim_concat", "transformer_options")
"""Of the host's networks, in their order; other wrappers may pass them by name."""
TREATED = (WanModel, VaceWanModel)

Attention = Callable[..., torch.Tensor]


class Radial:
    """A patch at work: what the host calls, and what it keeps of it."""

    def __init__(self, patch: RadialPatch, previous: Attention | None, shift: float) -> None:
        self.patch, self.previous = patch, previous
        self.record = RadialRecord()
        self._shift = shift

    def around_sampling(self, executor: WrapperExecutor, *args: Any, **named: Any) -> torch.Tensor:
        """An `OUTER_SAMPLE` wrapper: which steps of which schedule these are."""
        guider = executor.class_obj
        context = get_executing_context()
        self.record.begin(context.prompt_id if context else None)
        options = guider.model_options.setdefault("transformer_options", {})
        shift = shift_of(guider.model_patcher)
        # In the host's own training these are numbers of images.
        if not comfy.model_management.in_training:
            sigmas = options.get(SIGMAS_KEY, args[3] if len(args) > 3 else named["sigmas"])
            options[STEPS] = steps = steps_of(sigmas.tolist(), shift)
            self._require_sparse(steps, guider.model_patcher)
        else:
            options[STEPS] = usual_steps(shift)
        return executor(*args, **named)

    def around_network(self, executor: WrapperExecutor, *args: Any, **named: Any) -> torch.Tensor:
        """A `DIFFUSION_MODEL` wrapper: decides what this call's attention does."""
        network = executor.class_obj
        if type(network) not in TREATED:
            self.record.say(untreated_line(network))
            return executor(*args, **named)
        args, named, options = _with_options_apart(args, named)
        steps = options.get(STEPS)
        if not isinstance(steps, Steps):
            steps = usual_steps(self._shift)
        given = {**dict(zip(ARGUMENTS, args, strict=False)), **named}
        call = decided(self, network, given, options, steps)
        options[CALL] = call
        if comfy.model_management.in_training:
            with_own_indices(options, len(network.blocks))
            return executor(*args, **named)
        with self.record.timed("network", given["x"].device):
            out = executor(*args, **named)
        self.record.model_call(came_by=call.came_by)
        return out

    def _require_sparse(self, steps: Steps, model: ModelPatcher) -> None:
        settings = self.patch.settings
        layers = len(model.model.diffusion_model.blocks)
        if steps.any_sparse(settings, layers):
            return
        raise UserError(
            f"With {settings.dense_text()} none of the {steps.total} steps of this run would be sparse.",
            "Radial attention needs at least one step and one block that is.",
            "Lower dense_timesteps on Tandem Radial Attention, take more steps, or leave the node out.",
        )


class RadialHook:
    """The attention hook of a clone; it can be told from other nodes' hooks."""

    def __init__(self, radial: Radial) -> None:
        self.radial = radial

    def __call__(self, chosen: Attention, *args: Any, **named: Any) -> torch.Tensor:
        return _UNCOMPILED(self.radial, chosen, args, named)


def _hooked(
    radial: Radial, chosen: Attention, args: tuple[Any, ...], named: dict[str, Any]
) -> torch.Tensor:
    """What is none of our business goes to whoever had the hook before, or to the host."""
    options = named.get("transformer_options") or {}
    dense = chosen if radial.previous is None else _behind(radial.previous, chosen)
    call = options.get(CALL)
    if not isinstance(call, RadialCall) or call.radial is not radial:
        return dense(*args, **named)
    return call.attention(dense, options.get("block_index", 0), args, named)


# Counting and choosing is not for a compiler to look into; the network around it may still be compiled.
_UNCOMPILED = cast(Attention, torch.compiler.disable(_hooked))


def with_radial(model: ModelPatcher, patch: RadialPatch) -> ModelPatcher:
    """A clone that carries radial attention, instead of any that it carries already; `model` stays as it is.

    Raises `UserError` for what is no Wan model, and for settings or a backend that cannot be had on it.
    """
    network = require_wan(model, "model")
    with three_parts():
        if not any_sparse_layer(patch.settings, len(network.blocks)):
            raise SettingsError(
                f"dense_layers is {patch.settings.dense_layers}, which is every block; one or more have to stay sparse"
            )
        choose_backend(
            patch.backend,
            model.load_device,
            reference=patch.settings.reference,
            tile=patch.settings.tile,
        )
    if patch.strict and type(network) not in TREATED:
        raise UserError(
            untreated_line(network),
            "With strict, that is an error.",
            "Turn strict off to run it dense, or leave the node out.",
        )
    clone = model.clone()
    options = clone.model_options.setdefault("transformer_options", {})
    previous = options.get(HOOK)
    while isinstance(previous, RadialHook):
        previous = previous.radial.previous
    radial = Radial(patch, previous, shift_of(model))
    options[HOOK] = RadialHook(radial)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, radial.around_sampling),
        (WrappersMP.DIFFUSION_MODEL, radial.around_network),
    ):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    clone.set_attachments(KEY, radial)
    return clone


def radial_of(model: ModelPatcher) -> Radial | None:
    """The radial attention that a MODEL carries."""
    found = model.get_attachment(KEY)
    return found if isinstance(found, Radial) else None


def dense_blocks(patch: RadialPatch, network: WanModel) -> frozenset[int]:
    """Blocks that see everything."""
    return layer_numbers(patch.settings.dense_layers, len(network.blocks))


def untreated_line(network: object) -> str:
    """Why a network runs dense."""
    return (
        f"{type(network).__name__} is not treated: where its frames lie in the sequence is not known, so all of its "
        "attention runs dense."
    )


@contextmanager
def three_parts() -> Iterator[None]:
    """Errors of the operator as a person reads them: what came, what can be, what to do."""
    try:
        yield
    except (SettingsError, BackendError) as error:
        came, _, can_be = str(error).partition("; ")
        what = "backend" if isinstance(error, BackendError) else came.split(" ")[0]
        raise UserError(
            f"{came}.",
            f"{can_be[:1].upper()}{can_be[1:]}.",
            f"Change {what} on the node.",
        ) from error


def _behind(previous: Attention, chosen: Attention) -> Attention:
    def dense(*args: Any, **named: Any) -> torch.Tensor:
        return previous(chosen, *args, **named)

    return dense


def _with_options_apart(
    args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """The same call with its `transformer_options` copied: what is written into them stays in this call."""
    place = ARGUMENTS.index("transformer_options")
    if len(args) > place:
        options = dict(args[place])
        return (*args[:place], options, *args[place + 1 :]), named, options
    options = dict(named.get("transformer_options") or {})
    return args, {**named, "transformer_options": options}, options
