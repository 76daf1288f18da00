"""The shipped workflows about LoRA stacks: many at once, strength over the steps, scenes, one model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..wan.miniature.captions import caption
from ..wan.miniature.family import LORA_FOLDER
from .columns import (
    MAKING,
    READING,
    REPORTS_PX,
    SAMPLER_PX,
    WORDS_PX,
    Columns,
    Loaded,
    Sampling,
    low_input,
)
from .families import CLIP_VISION, DISTILLED, LIGHTNING, REWARDS, WAN21, Family
from .graphs import Graph, Node
from .toy_clips import DEMO_SCENE, SAID, TRIGGER
from .workflow_notes import SCENES_NOTE, SCHEDULE_NOTE, STACK_NOTE, TOY_STACK_NOTE, WAN21_NOTE

PEOPLE = "A woman turns her head and smiles, wind in her hair, the camera comes closer."
QUALITY = {
    "high": "Wan2.2-Fun-A14B-InP-high-noise-MPS.safetensors",
    "low": "Wan2.2-Fun-A14B-InP-low-noise-HPS2.1.safetensors",
}
DISTILLED_FILE = "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors"
LOOP = {
    "lora": f"{LORA_FOLDER}/mini_loop_high_noise.safetensors",
    "lora_low": f"{LORA_FOLDER}/mini_loop_low_noise.safetensors",
    "high": 1.0,
    "low": 1.0,
}
STRIPED = {"lora": f"{LORA_FOLDER}/mini_striped_low_noise.safetensors", "route": "low", "low": 1.0}
"""A look is the low-noise expert's work; on both experts it would get into the way of the motion."""
BOTH_SAID = f"{SAID} and turns {TRIGGER}"


def image_to_video(family: Family) -> Graph:
    """A clip from an image with three LoRAs: lightning on both experts, 2 + 2 steps, and a quality LoRA on each."""
    columns = Columns(replace(family, name="image_to_video", prompt=PEOPLE, steps=4, cfg=1.0))
    loaded = columns.models()
    lightning = family.models("loras", *LIGHTNING.values())
    urls = [model["url"] for model in lightning]
    columns.graph.note(STACK_NOTE.format(high=urls[0], low=urls[1], rewards=REWARDS), 240)
    rows = [
        {**LIGHTNING, "high": 1.0, "low": 1.0, "kind": "speed"},
        {"lora": QUALITY["low"], "low": 0.5, "route": "low", "kind": "quality"},
        {"lora": QUALITY["high"], "high": 0.3, "route": "high", "kind": "quality"},
    ]
    files = [*lightning, *(_download(REWARDS, file) for file in QUALITY.values())]
    return _one_clip(columns, loaded, rows, files, title="4. Sample: 2 + 2 steps")


def stack_of_loras(family: Family) -> Graph:
    """The miniature with a motion and a look at once."""
    words = caption(replace(DEMO_SCENE, look="plain"), motion=BOTH_SAID)
    columns = Columns(replace(family, name="stack_of_loras", prompt=words))
    loaded = columns.models()
    columns.graph.note(TOY_STACK_NOTE, 210)
    return _one_clip(columns, loaded, [{**LOOP, "kind": "motion"}, {**STRIPED, "kind": "style"}])


def strength_schedule(family: Family) -> Graph:
    """The miniature's motion LoRA, strong while the motion is decided and weak afterwards; and the plot of it."""
    schedule, low = "1@0, 1@30%, 0.4@1", "0.4"
    columns = Columns(replace(family, name="strength_schedule"))
    loaded = columns.models()
    columns.graph.note(SCHEDULE_NOTE, 250)
    row = {**LOOP, "kind": "motion", "schedule": schedule, "schedule_low": low}
    graph = _one_clip(columns, loaded, [row])
    graph.column("6. The strength, drawn", READING, REPORTS_PX)
    graph.add(
        "TandemStrengthSchedule",
        "Strength at each step",
        room_px=320,
        schedule=schedule,
        schedule_low=low,
        steps=family.steps,
    )
    return graph


def scenes(family: Family) -> Graph:
    """Three scenes of the miniature, each with LoRAs of its own, the next from the last frame of the one before."""
    told = [
        {"prompt": caption(replace(DEMO_SCENE, motion="right")), "rows": []},
        {"prompt": caption(DEMO_SCENE, motion=SAID), "rows": [LOOP]},
        {"prompt": caption(replace(DEMO_SCENE, motion="left")), "rows": []},
    ]
    columns = Columns(replace(family, name="scenes"))
    loaded = columns.models()
    columns.graph.note(SCENES_NOTE, 230)
    columns.graph.column("2. Scenes", MAKING, 400)
    image = columns.graph.add("LoadImage", "First frame", room_px=224, image=family.image)
    made = columns.graph.add(
        "TandemScenes",
        "The scenes",
        room_px=WORDS_PX + 200,
        model_high=loaded.high,
        **low_input(loaded.low),
        clip=loaded.clip,
        vae=loaded.vae,
        scenes=json.dumps(told, indent=1),
        start_image=image["IMAGE"],
        continue_from="last frame",
        steps=family.steps,
        cfg=family.cfg,
        shift=5.0,
        seed=7,
        frames=family.frames,
        **family.size,
    )
    columns.graph.column("3. The video", MAKING, SAMPLER_PX)
    columns.save("scenes", made["images"])
    columns.graph.column("4. Reports", READING, REPORTS_PX)
    columns.report("What each scene did", made["report"], 200)
    return columns.graph


def image_to_video_wan21() -> Graph:
    """The same stack node with the one model of Wan 2.1, which takes the image through CLIP vision too."""
    columns = Columns(replace(WAN21, name="image_to_video_wan2.1", prompt=PEOPLE))
    loaded = columns.models()
    columns.graph.note(WAN21_NOTE.format(DISTILLED + DISTILLED_FILE), 200)
    row = {"lora": DISTILLED_FILE, "high": 1.0, "kind": "speed"}
    applied = columns.stack(loaded, [row], [_download(DISTILLED, DISTILLED_FILE)])
    start = columns.conditioning("3. What to make", loaded, clip_vision=CLIP_VISION)
    return _sampled(columns, loaded, applied, start, "4. Sample")


def _one_clip(
    columns: Columns,
    loaded: Loaded,
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[dict[str, str]] = (),
    *,
    title: str = "4. Sample",
) -> Graph:
    unmatched = "warn" if columns.family.public else "error"
    applied = columns.stack(loaded, rows, files, unmatched=unmatched, room_px=100)
    start = columns.conditioning("3. What to make", loaded)
    return _sampled(columns, loaded, applied, start, title)


def _sampled(columns: Columns, loaded: Loaded, applied: Node, start: Node, title: str) -> Graph:
    low = applied["model_low"] if loaded.low else None
    sampling = Sampling(applied["model_high"], low, columns.family.steps, columns.family.cfg)
    sampler = columns.clip(title, "clip", sampling, start, loaded.vae)
    columns.graph.column("5. Reports", READING, REPORTS_PX)
    columns.report("Load report", applied["report"], 110)
    columns.report("The switch", sampler["report"], 20)
    return columns.graph


def _download(folder: str, file: str) -> dict[str, str]:
    return {"name": file, "url": folder + file, "directory": "loras"}
