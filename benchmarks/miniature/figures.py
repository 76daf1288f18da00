"""Every figure of the report, as the running host gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import torch

from ...dev.client import HostClient
from ...dev.toy_clips import frames
from ...dev.toy_sampling import model_file, node, read_clip
from ...wan.miniature.recipe.judge import Scores
from ...wan.miniature.recipe.vae import draw_everything
from ...wan.miniature.world import FPS, render
from .judging import Character, Judge, LookScore
from .loras import LOOK, MOTION, OVERTRAINED

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
EXPERTS = {"both": (1.0, 1.0), "high only": (1.0, 0.0), "low only": (0.0, 1.0)}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; keys of the mappings are rows of the report's tables."""

    vae_db: list[float]
    base: Scores
    held_out: Scores
    motion: dict[str, Scores]
    dial: dict[str, Scores]
    known: dict[str, Scores]
    look: dict[str, LookScore]
    look_dial: dict[str, LookScore]
    character: dict[str, Character]
    overtrained: Scores


def measure(judge: Judge, say: Callable[[str], None]) -> Figures:
    """All of it; `say` is told what is being measured."""

    def told(what: str, found: T) -> T:
        say(f"{what}: {found}")
        return found

    motion, look = MOTION.lesson, LOOK.lesson
    reconstructed = told("VAE", vae_db(judge.client, judge.base, judge.clips))
    without = told("base, asked by the trigger", judge.motion(motion))
    plain = told("base, asked for the look", judge.look(look))
    by_expert = {
        name: told(f"motion, {name}", judge.motion(motion, MOTION.at(*at)))
        for name, at in EXPERTS.items()
    }
    looks = {
        name: told(f"look, {name}", judge.look(look, LOOK.at(*at))) for name, at in EXPERTS.items()
    }
    between = [(f"{at:g}", at) for at in STRENGTHS[:-1]]
    base = told("base", judge.known())
    return Figures(
        vae_db=reconstructed,
        base=base,
        held_out=told("base, held-out motions", judge.held_out()),
        motion={"none": without, **by_expert},
        dial={
            "0": without,
            **{name: told(name, judge.motion(motion, MOTION.at(at, at))) for name, at in between},
            "1": by_expert["both"],
        },
        known={
            "none": base,
            **{
                lora.name: told(f"known motions, {lora.name}", judge.known(lora.at(1, 1)))
                for lora in (MOTION, LOOK, OVERTRAINED)
            },
        },
        look={"none": plain, **looks},
        look_dial={
            "0": plain,
            **{name: told(name, judge.look(look, LOOK.at(at, at))) for name, at in between},
            "1": looks["both"],
        },
        character={
            lora.name: told(f"character, {lora.name}", judge.character(motion, lora.at(1, 1)))
            for lora in (MOTION, OVERTRAINED)
        },
        overtrained=told("overtrained", judge.motion(motion, OVERTRAINED.at(1, 1))),
    )


def vae_db(client: HostClient, base: Path, count: int) -> list[float]:
    """PSNR of new clips, every motion and look among them, after the host's VAE nodes."""
    clips = render(draw_everything(count, seed=10_001))
    graph = {"vae": node("VAELoader", vae_name=model_file("vae"))}
    for number, clip in enumerate(clips):
        name = f"clip_{number:02d}.mkv"
        write_lossless(base / "input" / name, frames(clip))
        graph |= {
            f"load_{number}": node("LoadVideo", file=name),
            f"split_{number}": node("GetVideoComponents", video=[f"load_{number}", 0]),
            f"encode_{number}": node("VAEEncode", pixels=[f"split_{number}", 0], vae=["vae", 0]),
            f"decode_{number}": node("VAEDecode", samples=[f"encode_{number}", 0], vae=["vae", 0]),
            f"save_{number}": node(
                "SaveImage", images=[f"decode_{number}", 0], filename_prefix=f"toy/vae_{number:02d}"
            ),
        }
    outputs = client.run(graph)["outputs"]
    made = [read_clip(base, outputs[f"save_{number}"]["images"]) for number in range(len(clips))]
    errors = (torch.stack(made) - clips).square().mean(dim=(1, 2, 3, 4))
    return (-10 * errors.log10()).tolist()


def write_lossless(path: Path, pictures: Sequence[av.VideoFrame]) -> None:
    """An FFV1 video whose frames are the pictures to the last bit."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "bgr0"
        for picture in pictures:
            file.mux(stream.encode(picture.reformat(format="bgr0")))
        file.mux(stream.encode())
