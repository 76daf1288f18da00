"""The whole recipe, stage by stage; each stage leaves files that the next one starts from."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import load_file

from ...errors import UserError
from ...families import SigmaRange
from ...lora_files import write_safetensors
from ...text_encoder import METADATA_KEY
from ..layouts import TransformerSize
from ..transformer import WanTransformer, start_quietly, without_image
from ..vae import VideoAutoencoder, start_still
from ..world import HELD_OUT_MOTIONS, KNOWN_MOTIONS, render
from . import text
from .experts import BOUNDARY, Prompts, clip_loss, picture_loss
from .judge import make_clips, new_scenes, score
from .latents import LatentSet, fold, make_latents
from .stage import Stage, train_stage
from .vae import decoder_loss, draw_everything, reconstruction_psnr, vae_loss

logger = logging.getLogger("tandem.miniature")

STAGES = ("text", "vae", "latents", "base", "experts", "picture", "decoder")
PREFIX = "mini_wan2.2"
SEED = 0
PICTURE_STEPS = 900
PARTS = 12
SIZE = TransformerSize()

TEXT = Stage(name="text", steps=300, learning_rate=2e-3)
VAE = Stage(name="vae", steps=1520, learning_rate=4e-3)
DECODER = Stage(name="decoder", steps=700, seed=5, learning_rate=2e-3)
BASE = Stage(name="base", steps=4500, seed=1, learning_rate=2e-3, ema=0.998)
HIGH = Stage(name="high_noise", steps=500, seed=2, learning_rate=7e-4, ema=0.99)
LOW = Stage(name="low_noise", steps=700, seed=3, learning_rate=7e-4, ema=0.99)
PICTURE = Stage(name="picture", steps=900, seed=4, learning_rate=1.5e-3, ema=0.99)

WHOLE, UPPER, LOWER = SigmaRange(0, 1), SigmaRange(BOUNDARY, 1), SigmaRange(0, BOUNDARY)


@dataclass(frozen=True)
class Recipe:
    """One run of the recipe in a folder of its own."""

    folder: Path

    def run(self, last: str) -> None:
        """Every stage up to and including `last`; what is done already is only read."""
        if last not in STAGES:
            raise UserError(
                f"The stage is {last!r}.", f"It can be {', '.join(STAGES)}.", "Choose one."
            )
        prompts = self.text()
        if last == "text":
            return
        vae = self.vae()
        if last == "vae":
            return
        latents = self.latents(vae)
        if last == "latents":
            return
        base = self.base(latents, prompts, vae)
        if last == "base":
            return
        self.experts(base, latents, prompts, vae)
        if last == "experts":
            return
        self.picture(base, latents, prompts)
        if last == "decoder":
            self.decoder(vae)

    def text(self) -> Prompts:
        proto_path = self.folder / "tokenizer.safetensors"
        if not proto_path.exists():
            proto = torch.frombuffer(bytearray(text.make_tokenizer(SEED)), dtype=torch.uint8)
            write_safetensors(proto_path, {"spiece_model": proto}, {})
        proto = load_file(proto_path)["spiece_model"]
        pieces = sentencepiece.SentencePieceProcessor(model_proto=proto.numpy().tobytes())
        reader = text.new_reader(pieces, SEED)
        train_stage(TEXT, reader, text.text_loss(reader, pieces, TEXT), self.folder)
        encoder = reader.text_encoder
        tensors = _shipped(encoder.state_dict()) | {"spiece_model": proto}
        metadata = {METADATA_KEY: json.dumps({"tokens": encoder.size.tokens})}
        write_safetensors(self._model("text_encoders", "umt5"), tensors, metadata)
        return Prompts(_as_shipped(encoder), pieces)

    def vae(self) -> VideoAutoencoder:
        torch.manual_seed(SEED)
        vae = VideoAutoencoder()
        start_still(vae)
        train_stage(VAE, vae, vae_loss(vae, VAE, PICTURE_STEPS), self.folder)
        fold(vae, seed=SEED + 20_000)
        self._write_vae(vae)
        return vae

    def decoder(self, vae: VideoAutoencoder) -> None:
        """More of the decoder alone: the networks know the latents by now, so the encoder stays."""
        for half in (vae.decoder, vae.conv2):
            half.requires_grad_(True)
        train_stage(DECODER, vae, decoder_loss(vae), self.folder)
        self._write_vae(vae)

    def _write_vae(self, vae: VideoAutoencoder) -> None:
        write_safetensors(self._model("vae", "vae"), _shipped(vae.state_dict()), {})
        _as_shipped(vae)
        found = reconstruction_psnr(vae, render(draw_everything(24, seed=10_001)))
        logger.info("vae: %.2f dB mean, %.2f dB worst of 24 new clips", found.mean(), found.min())

    def latents(self, vae: VideoAutoencoder) -> LatentSet:
        found = make_latents(vae, self.folder / "latents", PARTS, SEED + 30_000)
        deviation = found.clips.float().std(dim=(0, 2, 3, 4))
        logger.info("latents: %d clips, deviation %s", len(found.clips), deviation)
        return found

    def base(self, latents: LatentSet, prompts: Prompts, vae: VideoAutoencoder) -> WanTransformer:
        base = WanTransformer(SIZE)
        start_quietly(base, SEED)
        train_stage(BASE, base, clip_loss(base, latents, prompts, WHOLE), self.folder)
        self._judge("base", (base, base), prompts, vae)
        return base

    def experts(
        self, base: WanTransformer, latents: LatentSet, prompts: Prompts, vae: VideoAutoencoder
    ) -> None:
        pair = []
        for stage, within in ((HIGH, UPPER), (LOW, LOWER)):
            expert = WanTransformer(SIZE)
            expert.load_state_dict(base.state_dict())
            train_stage(stage, expert, clip_loss(expert, latents, prompts, within), self.folder)
            self._write_transformer(expert, f"i2v_{stage.name}")
            pair.append(_as_shipped(expert))
        self._judge("experts", (pair[0], pair[1]), prompts, vae)

    def picture(self, base: WanTransformer, latents: LatentSet, prompts: Prompts) -> None:
        network = without_image(base)
        train_stage(PICTURE, network, picture_loss(network, latents, prompts), self.folder)
        self._write_transformer(network, "t2v")

    def _judge(
        self,
        name: str,
        experts: tuple[WanTransformer, WanTransformer],
        prompts: Prompts,
        vae: VideoAutoencoder,
    ) -> None:
        for what, motions in (("known", KNOWN_MOTIONS), ("held-out", HELD_OUT_MOTIONS)):
            scenes = new_scenes(10 * len(motions), 40_000, motions)
            clips = make_clips(experts, vae, prompts, scenes, seed=SEED)
            scores, each = score(clips, scenes)
            logger.info("%s, %s motions: %s", name, what, scores)
            for motion in motions:
                nearest = [
                    e.nearest for e, s in zip(each, scenes, strict=True) if s.motion == motion
                ]
                logger.info("  asked %s, came %s", motion, ", ".join(sorted(nearest)))

    def _write_transformer(self, network: WanTransformer, name: str) -> None:
        size = network.size
        config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
        write_safetensors(
            self._model("diffusion_models", name),
            _shipped(network.state_dict()),
            {"config": json.dumps(config)},
        )

    def _model(self, kind: str, name: str) -> Path:
        return self.folder / "models" / kind / f"{PREFIX}_{name}.safetensors"


def _shipped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half the size; float16, which leaves more of a small weight than bfloat16 does."""
    return {name: tensor.half() for name, tensor in tensors.items()}


def _as_shipped(network: torch.nn.Module) -> torch.nn.Module:
    """The network with the weights as a reader of the file gets them: later stages build on these."""
    network.load_state_dict(_shipped(network.state_dict()))
    return network.requires_grad_(False)
