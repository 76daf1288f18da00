"""All that is measured of a trained family, as one JSON file: the numbers of the model card."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from ..captions import caption, still_caption
from ..measures import Obedience, colour_of, diversity, look_of
from ..sampling import Network
from ..vae import VideoAutoencoder
from ..world import HELD_OUT_MOTIONS, KNOWN_MOTIONS, Scene, render
from .experts import Prompts
from .judge import make_clips, make_pictures, new_scenes, score
from .vae import draw_everything, reconstruction_psnr

logger = logging.getLogger("tandem.miniature")

Pair = tuple[Network, Network]

SEED = 40_000
EACH = 10
"""Clips for each motion."""
SURVIVAL_SIGMAS = (0.95, 0.9, 0.8, 0.7)
CONTRARY = {"left": "right", "right": "left", "up": "down", "down": "up"}


def measure_family(
    pairs: dict[str, Pair], painter: Network, vae: VideoAutoencoder, prompts: Prompts, path: Path
) -> dict[str, object]:
    """Writes and gives the figures of the VAE, of every pair of experts by name, and of the `painter`."""
    figures: dict[str, object] = {
        "vae_psnr_db": vae_figures(vae),
        "pictures": picture_figures(painter, vae, prompts),
    }
    for name, pair in pairs.items():
        figures[name] = {
            "known motions": obedience_figures(pair, vae, prompts, KNOWN_MOTIONS),
            "held-out motions": obedience_figures(pair, vae, prompts, HELD_OUT_MOTIONS),
            "diversity of 6 seeds without a motion": diversity_figure(pair, vae, prompts),
            "true motion survives noise": survival_figures(pair, vae, prompts),
        }
        logger.info("%s: %s", name, json.dumps(figures[name]))
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def vae_figures(vae: VideoAutoencoder) -> dict[str, float]:
    """Mean and worst of 48 new clips, held-out looks and motions among them."""
    found = reconstruction_psnr(vae, render(draw_everything(48, seed=10_001)))
    return {"mean": round(found.mean().item(), 2), "worst": round(found.min().item(), 2)}


def obedience_figures(
    pair: Pair, vae: VideoAutoencoder, prompts: Prompts, motions: Sequence[str]
) -> dict[str, object]:
    """Shares of kind and path over EACH clips a motion, and what came for each of them."""
    scenes = new_scenes(EACH * len(motions), SEED, motions)
    scores, each = score(make_clips(pair, vae, prompts, scenes, seed=SEED), scenes)
    return {
        **{name: round(value, 3) for name, value in scores._asdict().items()},
        "clips": len(scenes),
        "came": {motion: _came(motion, scenes, each) for motion in motions},
    }


def _came(motion: str, scenes: Sequence[Scene], each: Sequence[Obedience]) -> dict[str, int]:
    nearest = [o.nearest for o, s in zip(each, scenes, strict=True) if s.motion == motion]
    return {name: nearest.count(name) for name in sorted(set(nearest))}


def picture_figures(painter: Network, vae: VideoAutoencoder, prompts: Prompts) -> dict[str, float]:
    """Shares of 36 pictures from captions alone that have the asked colour, and the asked look."""
    scenes = new_scenes(36, SEED + 3)
    pictures = make_pictures(painter, vae, prompts, [still_caption(s) for s in scenes], seed=SEED)
    pairs = list(zip(pictures, scenes, strict=True))
    return {
        "colour": round(sum(colour_of(p) == s.colour for p, s in pairs) / len(pairs), 3),
        "look": round(sum(look_of(p[0]) == s.look for p, s in pairs) / len(pairs), 3),
    }


def diversity_figure(pair: Pair, vae: VideoAutoencoder, prompts: Prompts) -> float:
    """Mean difference between clips of one first frame whose caption does not say the motion."""
    scene = new_scenes(1, SEED + 1)[0]
    said = [caption(scene, motion="")] * 6
    clips = make_clips(pair, vae, prompts, [scene] * 6, seed=SEED, said=said)
    return round(diversity(list(clips)), 4)


def survival_figures(
    pair: Pair, vae: VideoAutoencoder, prompts: Prompts
) -> dict[str, dict[str, float]]:
    """How often a true clip's motion comes back when the clip was noised to sigma, by what is said then.

    Where nothing survives the high-noise expert decides the motion; where all does, it is decided.
    """
    scenes = new_scenes(12, SEED + 2, tuple(CONTRARY))
    words = {
        "empty": ["" for _ in scenes],
        "unknown word": [caption(scene, motion="does MERMAID") for scene in scenes],
        "contrary word": [
            caption(scene, motion=f"moves {CONTRARY[scene.motion]}") for scene in scenes
        ],
    }
    found: dict[str, dict[str, float]] = {}
    for what, said in words.items():
        found[what] = {}
        for sigma in SURVIVAL_SIGMAS:
            clips = make_clips(pair, vae, prompts, scenes, seed=SEED, said=said, begin=sigma)
            found[what][str(sigma)] = round(score(clips, scenes)[0].kind, 3)
    return found
