"""The model families that the shipped workflows are made for: their files, sizes and words."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from ..wan.miniature.captions import caption
from ..wan.miniature.family import PREFIX
from .toy_clips import CHANGES, DEMO_SCENE, SAID, TRIGGER

HUB = "https://huggingface.co/Comfy-Org/Wan_2.{}_ComfyUI_{}ackaged/resolve/main/split_files/"
REWARDS = "https://huggingface.co/alibaba-pai/Wan2.2-Fun-Reward-LoRAs/resolve/main/"
DISTILLED = "https://huggingface.co/Kijai/WanVideo_comfy/resolve/main/Lightx2v/"
LIGHTNING = {
    "lora": "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors",
    "lora_low": "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """The files of a model family, and how it is used."""

    high: str
    low: str
    vae: str
    text_encoder: str
    image: str
    folder: str
    name: str
    preset: str
    width: int
    height: int
    frames: int
    steps: int
    cfg: float
    templates: str
    slots: str
    prompt: str
    advice: str
    """What the note of the training workflow begins with."""
    trigger: str = "MERMAID"
    changes: str = ""
    """What the plan is to have otherwise than its preset, as JSON; empty for nothing."""
    public: bool = False
    """Whether its files can be had from the hub."""

    @property
    def size(self) -> dict[str, int]:
        return {"width": self.width, "height": self.height}

    def models(self, directory: str, *files: str) -> list[dict[str, str]]:
        """Where files can be had, for the browser's own download dialog."""
        if not self.public:
            return []
        old = directory in ("text_encoders", "clip_vision") or not self.low
        hub = HUB.format("1" if old else "2", "rep" if old else "Rep")
        return [
            {"name": file, "url": f"{hub}{directory}/{file}", "directory": directory}
            for file in files
        ]


TINY = Family(
    high="tiny_wan2.2_i2v_high_noise.safetensors",
    low="tiny_wan2.2_i2v_low_noise.safetensors",
    vae="tiny_wan2.2_i2v_vae.safetensors",
    text_encoder="tiny_wan2.2_i2v_umt5.safetensors",
    image="tandem_demo_first_frame.png",
    folder="tandem_demo",
    name="demo",
    preset="character",
    width=64,
    height=64,
    frames=17,
    steps=8,
    cfg=1.0,
    templates="60% | A {scene} in the style of {trigger}, the camera follows.\n"
    "40% | A {scene} filmed as {trigger}.",
    slots="scene = street scene | drive | walk",
    prompt="A street scene in the style of MERMAID, the camera follows.",
    advice="Queue this graph as it is: it takes a few minutes on a CPU, with the tiny random models and the "
    "clips that *make host* lays out. For real videos open *train_and_sample_wan2.2_14B*.",
)
MINI = Family(
    high=f"{PREFIX}_i2v_high_noise.safetensors",
    low=f"{PREFIX}_i2v_low_noise.safetensors",
    vae=f"{PREFIX}_vae.safetensors",
    text_encoder=f"{PREFIX}_umt5.safetensors",
    image="tandem_demo_first_frame.png",
    folder="tandem_demo",
    name="demo",
    preset="character",
    width=64,
    height=64,
    frames=17,
    steps=16,
    cfg=1.0,
    templates="",
    slots="",
    prompt=caption(DEMO_SCENE, motion=SAID),
    trigger=TRIGGER,
    changes=json.dumps(CHANGES, indent=1),
    advice="Queue this graph as it is: it takes about two minutes on a CPU. The miniature Wan 2.2 that *make host* "
    "lays out knows seven motions of simple shapes; here it learns an eighth, a loop, under the word "
    f"*{TRIGGER}*. For real videos open the graph for Wan 2.2 14B.",
)
PUBLIC = Family(
    high="wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors",
    low="wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors",
    vae="wan_2.1_vae.safetensors",
    text_encoder="umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    image="example.png",
    folder="my_clips",
    name="mermaid_v1",
    preset="video effect",
    width=832,
    height=480,
    frames=81,
    steps=20,
    cfg=3.5,
    templates="A {person} transforms into a beautiful {trigger} with shimmering tail underwater.",
    slots="person = woman | man",
    prompt="A woman transforms into a beautiful MERMAID with shimmering tail underwater.",
    advice="Put your clips into *input/my_clips*, write your trigger and captions, choose a first frame, "
    "then queue.",
    public=True,
)
WAN21 = replace(
    PUBLIC,
    high="wan2.1_i2v_480p_14B_fp16.safetensors",
    low="",
    name="wan2.1",
    cfg=1.0,
    steps=6,
)
CLIP_VISION = "clip_vision_h.safetensors"
