"""Scenes sampled one after the other on one copy of the models, each with its own LoRA stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import comfy.model_management
import torch

from ...wan.errors import UserError
from ...wan.families import Role
from ...wan.lora.judge import Policy
from ...wan.lora.report import LoadReport
from ...wan.lora.stack import LoraStack, rows_json
from ...wan.scenes import LARGEST_SEED, Scene, in_scene, parse_scenes
from .loras import for_models, listed_rows, state_of, state_of_all
from .sampling import Request, Schedule, make_schedule, sample_pair, with_shift
from .stack import apply_stack
from .wan_models import model_task, require_pair, require_vae, takes_clip_vision

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

Continuation = Literal["own image", "last frame"]
CONTINUATIONS: tuple[Continuation, ...] = ("own image", "last frame")
Conditioning = list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class Studio:
    """What all scenes share: models, encoders, first pictures, and the stack that comes before each scene's rows."""

    models: Mapping[Role, ModelPatcher]
    clip: CLIP
    vae: VAE
    pictures: torch.Tensor | None
    """(pictures, height, width, channels) in [0, 1]: scene n takes the nth, or the last one."""
    stack: LoraStack


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every scene is sampled, unless it says otherwise."""

    negative: str
    width: int
    """Pixels."""
    height: int
    frames: int
    """4k+1."""
    steps: int
    """Of both experts together."""
    cfg: float
    shift: float
    """0 keeps the MODEL's."""
    sampler_name: str
    scheduler: str
    seed: int
    """Of the first scene; each later one takes the next number."""
    continue_from: Continuation
    unmatched: Policy


def checked_scenes(text: str) -> tuple[Scene, ...]:
    """The scenes, when every LoRA they name is a file that can be read; errors name scene and row."""
    scenes = []
    for number, scene in enumerate(parse_scenes(text), 1):
        try:
            scenes.append(replace(scene, rows=listed_rows(scene.rows)))
        except UserError as error:
            raise in_scene(f"Scene {number}", error) from error
    return tuple(scenes)


def scenes_fingerprint(text: str | None) -> str:
    """Another text when a LoRA of a scene is overwritten under its name, or a row's other half comes or goes."""
    if text is None:
        return str(state_of_all())
    return f"{text} {[state_of(scene.rows) for scene in parse_scenes(text)]}"


def sample_scenes(
    scenes: Sequence[Scene], studio: Studio, settings: Settings, tell: Callable[[str], None]
) -> tuple[torch.Tensor, str]:
    """All scenes' frames as one clip (frames, height, width, 3), and what was done.

    `tell` is told which scene is at work. Raises `UserError` before the first step when something does not fit,
    and the host's interruption between steps.
    """
    _require_fitting(studio, settings)
    tell("loads the LoRAs of all scenes")
    stage = _Stage(scenes, studio, settings)
    tell("reads the prompts")
    texts = _encoded(studio.clip, [settings.negative, *(scene.prompt for scene in scenes)])
    clips: list[torch.Tensor] = []
    lines = [stage.schedule.report(two_experts=len(studio.models) == 2)]
    for number, scene in enumerate(scenes):
        comfy.model_management.throw_exception_if_processing_interrupted()
        began = time.monotonic()
        headline = f"Scene {number + 1} of {len(scenes)}: {scene.prompt}"
        tell(headline)
        last = clips[-1][-1:] if clips else None
        frames = stage.sample(number, texts[scene.prompt], texts[settings.negative], last)
        seconds = time.monotonic() - began
        lines += [headline, *stage.told(number, frames, seconds)]
        clips.append(frames)
    if settings.continue_from == "last frame":
        # Each later scene repeats the frame that it began with.
        clips[1:] = [clip[1:] for clip in clips[1:]]
    images = torch.cat(clips)
    return images, "\n".join([*lines, f"{len(images)} frames together"])


class _Stage:
    """The models as each scene needs them, and a scene on them."""

    def __init__(self, scenes: Sequence[Scene], studio: Studio, settings: Settings) -> None:
        self._scenes, self._studio, self._settings = scenes, studio, settings
        models: dict[Role, ModelPatcher] = {
            role: with_shift(model, settings.shift) for role, model in studio.models.items()
        }
        self._stacks = AppliedStacks(
            [studio.stack.then(LoraStack(scene.rows)) for scene in scenes],
            models,
            settings.unmatched,
        )
        self.schedule: Schedule = make_schedule(
            next(iter(models.values())),
            steps=settings.steps,
            scheduler=settings.scheduler,
            sampler_name=settings.sampler_name,
            denoise=1.0,
            boundary=0.0,
        )

    def sample(
        self,
        number: int,
        positive: Conditioning,
        negative: Conditioning,
        last: torch.Tensor | None,
    ) -> torch.Tensor:
        """(frames, height, width, 3) of a scene, counted from 0; `last` is the last frame of the one before."""
        # The host's own code makes the first-frame condition; imported late, the host has it by then.
        from comfy_extras.nodes_wan import WanImageToVideo

        settings = self._settings
        models = list(self._stacks.models(number).values())
        began = WanImageToVideo.execute(
            positive,
            negative,
            self._studio.vae,
            settings.width,
            settings.height,
            self._scenes[number].frames or settings.frames,
            1,
            start_image=self._first_frame(number, last),
        )
        request = Request(
            positive=began[0],
            negative=began[1],
            latent=began[2],
            seed=self._seed(number),
            cfg=settings.cfg,
            cfg_low=0.0,
            sampler_name=settings.sampler_name,
        )
        low = models[1] if len(models) == 2 else None
        latent = sample_pair(models[0], low, self.schedule, request)["samples"]
        return self._studio.vae.decode(latent).flatten(0, -4)

    def told(self, number: int, frames: torch.Tensor, seconds: float) -> list[str]:
        """What a person should know of a scene that is done."""
        return [
            f"  {len(frames)} frames from {self._origin(number)}, seed {self._seed(number)}, {seconds:.1f} s",
            *(f"  {line}" for line in self._stacks.told(number)),
        ]

    def _seed(self, number: int) -> int:
        own = self._scenes[number].seed
        return own if own is not None else (self._settings.seed + number) % (LARGEST_SEED + 1)

    def _continues(self, number: int) -> bool:
        return number > 0 and self._settings.continue_from == "last frame"

    def _first_frame(self, number: int, last: torch.Tensor | None) -> torch.Tensor | None:
        pictures = self._studio.pictures
        if self._continues(number):
            return last
        return None if pictures is None else pictures[min(number, len(pictures) - 1)][None]

    def _origin(self, number: int) -> str:
        pictures = self._studio.pictures
        if self._continues(number):
            return f"the last frame of scene {number}"
        if pictures is None:
            return "no picture"
        return f"picture {min(number + 1, len(pictures))} of {len(pictures)}"


class _Applied(NamedTuple):
    models: Mapping[Role, ModelPatcher]
    report: LoadReport
    notes: tuple[str, ...]


class AppliedStacks:
    """Stacks on the same models: equal ones are put on once, and dropped after the last scene that has them.

    All are put on before the first scene, so that one that does not fit costs no sampling. On two experts a row takes
    the other half of its pair when that is certain.
    """

    def __init__(
        self, stacks: Sequence[LoraStack], models: Mapping[Role, ModelPatcher], unmatched: Policy
    ) -> None:
        self._keys: list[str] = []
        self._applied: dict[str, _Applied] = {}
        for number, stack in enumerate(stacks, 1):
            full, notes = for_models(stack, models)
            key = rows_json(tuple(row for row in full.rows if row.on))
            self._keys.append(key)
            if key in self._applied:
                continue
            try:
                patched, report = apply_stack(full, models, unmatched)
            except UserError as error:
                raise in_scene(f"Scene {number}", error) from error
            self._applied[key] = _Applied(patched, report, notes)

    def models(self, number: int) -> Mapping[Role, ModelPatcher]:
        """The models that carry the stack of a scene, counted from 0; scenes are asked for in order."""
        needed = set(self._keys[number:])
        self._applied = {key: made for key, made in self._applied.items() if key in needed}
        return self._applied[self._keys[number]].models

    def told(self, number: int) -> list[str]:
        """The load report of a scene whose models were asked for last."""
        first = self._keys.index(self._keys[number])
        if first < number:
            return [f"LoRAs as in scene {first + 1}, not loaded again"]
        applied = self._applied[self._keys[number]]
        return [*applied.report.text().splitlines(), *applied.notes]


def _encoded(clip: CLIP, texts: Sequence[str]) -> dict[str, Conditioning]:
    """Each text once, as the host's own node encodes it."""
    return {
        text: clip.encode_from_tokens_scheduled(clip.tokenize(text))
        for text in dict.fromkeys(texts)
    }


def _require_fitting(studio: Studio, settings: Settings) -> None:
    """What can be wrong with the sockets, before anything is encoded."""
    require_pair(studio.models)
    first = next(iter(studio.models.values()))
    require_vae(studio.vae, first)
    if first.model.latent_format.latent_channels != 16 or takes_clip_vision(first):
        raise UserError(
            "The model is Wan 2.2 5B, or a Wan 2.1 image-to-video model, which needs image features.",
            "Tandem Scenes takes Wan 2.2 A14B and Wan 2.1 text-to-video.",
            "Sample each scene with the model's own nodes and Tandem Dual Sampler.",
        )
    if model_task(first) == "i2v":
        return
    if studio.pictures is not None or settings.continue_from == "last frame":
        raise UserError(
            "The model is text-to-video, which cannot begin with a picture.",
            "start_image and continue_from = last frame are for image-to-video models.",
            "Disconnect start_image and set continue_from to own image, or load an image-to-video model.",
        )
