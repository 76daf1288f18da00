"""`python dev workflows`: writes the shipped workflows, in both forms, from one description each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .graphs import Graph, Node, write_workflow
from .host import fill_base
from .server import HostServer, prepare_base

ROOT = Path(__file__).absolute().parents[1]
HUB = "https://huggingface.co/Comfy-Org/Wan_2.{}_ComfyUI_{}ackaged/resolve/main/split_files/"
LIGHTNING = "wan2.2_i2v_lightx2v_4steps_lora_v1_{}_noise.safetensors"


@dataclass(frozen=True, kw_only=True)
class Family:
    """The files of a model family, and the sizes at which it is used."""

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
    template: str
    prompt: str
    public: bool = False

    def models(self, directory: str, file: str) -> list[dict[str, str]]:
        """Where a file can be had, for the host's own download dialog."""
        if not self.public:
            return []
        old = directory == "text_encoders"
        hub = HUB.format("1" if old else "2", "rep" if old else "Rep")
        return [{"name": file, "url": f"{hub}{directory}/{file}", "directory": directory}]


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
    template="60% | A {scene} in the style of {trigger}, the camera follows.\n40% | A {scene} filmed as {trigger}.",
    prompt="A street scene in the style of MERMAID, the camera follows.",
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
    template="A {person} transforms into a beautiful {trigger} with shimmering tail underwater.",
    prompt="A woman transforms into a beautiful MERMAID with shimmering tail underwater.",
    public=True,
)
SLOTS = {TINY: "scene = street scene | drive | walk", PUBLIC: "person = woman | man"}


def train_and_sample(family: Family) -> Graph:
    """Dataset to LoRA pair to a clip before and a clip after, in one queued graph."""
    graph = Graph()
    loaders = _loaders(graph, family)
    high, low, vae, text = loaders
    dataset = graph.add(
        "TandemDataset", "Clips to learn from", 1, 230, folder=family.folder, media="video", trigger="MERMAID",
        width=family.width, height=family.height, frames=family.frames,
    )  # fmt: skip
    captions = graph.add(
        "TandemCaptionTemplate", "Captions, all alike", 1, 290, dataset=dataset["dataset"],
        templates=family.template, slots=SLOTS[family],
    )  # fmt: skip
    plan = graph.add(
        "TandemAutoParameters",
        "Plan of the run",
        1,
        130,
        dataset=captions["dataset"],
        preset=family.preset,
    )
    trainer = graph.add(
        "TandemTrainer", "Train both experts", 2, 460, plan=plan["plan"], dataset=captions["dataset"],
        clip=text["clip"], vae=vae["VAE"], name=family.name, model_high=high["MODEL"], model_low=low["MODEL"],
    )  # fmt: skip
    result = graph.add("TandemJobResult", "The trained pair", 2, 180, job=trainer["job"])
    applied = graph.add(
        "TandemApplyStack", "Put the pair on the models", 2, 160, stack=result["stack"],
        model_high=high["MODEL"], model_low=low["MODEL"],
    )  # fmt: skip
    conditioning = _conditioning(graph, family, text, vae, column=3)
    before = _clip(
        graph, family, (high["MODEL"], low["MODEL"]), conditioning, vae, "before", column=4
    )
    after = _clip(
        graph,
        family,
        (applied["model_high"], applied["model_low"]),
        conditioning,
        vae,
        "after",
        column=5,
    )
    shown = [
        ("What the run says", trainer["status"]),
        ("Load report", applied["report"]),
        ("The switch", after[0]["report"]),
    ]
    reports = [graph.add("PreviewAny", title, 6, 240, source=link) for title, link in shown]
    graph.note(TRAIN_NOTE, 6, 300)
    graph.group("1. Models", *loaders)
    graph.group("2. Dataset and plan", dataset, captions, plan)
    graph.group("3. Train, then use the pair", trainer, result, applied)
    graph.group("4. What to make", *_members(graph, column=3))
    graph.group("5. Before: without the LoRA", *before)
    graph.group("6. After: with the LoRA, same seed", *after)
    graph.group("7. Reports", *reports)
    return graph


def image_to_video(family: Family) -> Graph:
    """A clip from an image with a stack: lightning on both experts, 2 + 2 steps."""
    graph = Graph()
    loaders = _loaders(graph, family)
    high, low, vae, text = loaders
    rows = (
        f'[{{"lora": "{LIGHTNING.format("high")}", "lora_low": "{LIGHTNING.format("low")}", '
        '"high": 1.0, "low": 1.0, "kind": "speed"}]'
    )
    stack = graph.add(
        "TandemLoraStack", "The stack", 1, 200, rows=rows,
        models=family.models("loras", LIGHTNING.format("high")) + family.models("loras", LIGHTNING.format("low")),
    )  # fmt: skip
    applied = graph.add(
        "TandemApplyStack", "Put the stack on the models", 1, 160, stack=stack["stack"],
        model_high=high["MODEL"], model_low=low["MODEL"], unmatched="warn",
    )  # fmt: skip
    conditioning = _conditioning(graph, family, text, vae, column=2)
    clip = _clip(
        graph, family, (applied["model_high"], applied["model_low"]), conditioning, vae, "clip", column=3,
        steps=4, cfg=1.0,
    )  # fmt: skip
    shown = [("Load report", applied["report"]), ("The switch", clip[0]["report"])]
    reports = [graph.add("PreviewAny", title, 4, 240, source=link) for title, link in shown]
    graph.note(STACK_NOTE, 4, 260)
    graph.group("1. Models", *loaders)
    graph.group("2. LoRAs", stack, applied)
    graph.group("3. What to make", *_members(graph, column=2))
    graph.group("4. Sample: 2 steps high, 2 low", *clip)
    graph.group("5. Reports", *reports)
    return graph


TRAIN_NOTE = """### Train a LoRA pair, then sample with it

Queue this graph as it is. It captions the clips in the dataset folder, trains a LoRA for each expert on
**the very models that are loaded here**, and samples the same clip twice: without and with the pair.

- High noise runs first and decides motion and layout; low noise runs second and adds detail.
- *Cancel* stops the run and saves it; queue again and it goes on. A finished run is not trained twice.
- The pair lands in your loras folder as `NAME_high_noise` and `NAME_low_noise`.
"""
STACK_NOTE = """### Image to video with a stack of LoRAs

Each row of the stack names a LoRA, or a pair for both experts. The load report says what every file did;
a LoRA that matches nothing stops the graph instead of doing nothing.

With a 4-step lightning pair: 4 steps, cfg 1.0, shift 5. The sampler takes 2 steps with each expert.
"""


def workflows() -> dict[str, Graph]:
    """The shipped workflows by name; the tiny one runs on any laptop, the others take the public files."""
    return {
        "train_and_sample": train_and_sample(TINY),
        "train_and_sample_wan2.2_14B": train_and_sample(PUBLIC),
        "image_to_video": image_to_video(PUBLIC),
    }


def main(argv: Sequence[str]) -> int:
    """Asks a running host for the nodes' inputs, then writes workflows/."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        base = prepare_base(Path(folder), ROOT)
        fill_base(base)
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            write_all(client.object_info(), ROOT / "workflows")
    return 0


def write_all(info: Mapping[str, Any], folder: Path) -> None:
    """Every shipped workflow in both forms."""
    for name, graph in workflows().items():
        write_workflow(graph, info, folder, name)


def _loaders(graph: Graph, family: Family) -> tuple[Node, Node, Node, Node]:
    unet = {"weight_dtype": "default"}
    directory = "diffusion_models"
    return (
        graph.add("UNETLoader", "High-noise expert: runs first", 0, 110, unet_name=family.high, **unet,
                  models=family.models(directory, family.high)),
        graph.add("UNETLoader", "Low-noise expert: runs second", 0, 110, unet_name=family.low, **unet,
                  models=family.models(directory, family.low)),
        graph.add("VAELoader", "VAE", 0, 90, vae_name=family.vae, models=family.models("vae", family.vae)),
        graph.add("TandemTextEncoderLoader", "Text encoder", 0, 90, text_encoder=family.text_encoder,
                  models=family.models("text_encoders", family.text_encoder)),
    )  # fmt: skip


def _conditioning(graph: Graph, family: Family, text: Node, vae: Node, *, column: int) -> Node:
    image = graph.add("LoadImage", "First frame", column, 330, image=family.image)
    positive = graph.add(
        "CLIPTextEncode", "What it shows", column, 140, text=family.prompt, clip=text["clip"]
    )
    negative = graph.add(
        "CLIPTextEncode",
        "What it does not show",
        column,
        140,
        text="blurry, still, low quality",
        clip=text["clip"],
    )
    return graph.add(
        "WanImageToVideo", "Image to video", column, 240, positive=positive["CONDITIONING"],
        negative=negative["CONDITIONING"], vae=vae["VAE"], width=family.width, height=family.height,
        length=family.frames, start_image=image["IMAGE"],
    )  # fmt: skip


def _clip(
    graph: Graph, family: Family, models: tuple[Any, Any], conditioning: Node, vae: Node, name: str, *, column: int,
    steps: int | None = None, cfg: float | None = None,
) -> list[Node]:  # fmt: skip
    sampler = graph.add(
        "TandemDualSampler", f"Sample {name}", column, 420, model_high=models[0], model_low=models[1],
        positive=conditioning["positive"], negative=conditioning["negative"], latent=conditioning["latent"],
        seed=7, steps=steps or family.steps, cfg=cfg or family.cfg, shift=5.0,
    )  # fmt: skip
    decode = graph.add(
        "VAEDecode", f"Decode {name}", column, 60, samples=sampler["latent"], vae=vae["VAE"]
    )
    video = graph.add(
        "CreateVideo", f"Frames to video, {name}", column, 110, images=decode["IMAGE"], fps=16.0
    )
    save = graph.add(
        "SaveVideo", f"Save {name}", column, 330, video=video["VIDEO"], filename_prefix=f"tandem/{family.name}_{name}",
        format="auto", codec="auto",
    )  # fmt: skip
    return [sampler, decode, video, save]


def _members(graph: Graph, *, column: int) -> list[Node]:
    left = min(n.pos[0] for n in graph.nodes)
    return [n for n in graph.nodes if (n.pos[0] - left) // 400 == column]
