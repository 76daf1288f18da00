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
from ...lora.files import write_safetensors
from ...text_encoder import METADATA_KEY
from ..family import PREFIX, VERSION, VERSION_KEY
from ..layouts import TransformerSize
from ..transformer import WanTransformer, start_quietly, without_image
from ..vae import VideoAutoencoder, start_still
from ..world import render
from . import text
from .experts import BOUNDARY, Prompts, clip_loss, picture_loss
from .figures import measure_family
from .latents import LatentSet, fold, make_latents
from .stage import Stage, train_stage
from .vae import draw_everything, reconstruction_psnr, vae_loss

logger = logging.getLogger("tandem.miniature")

STAGES = ("text", "vae", "latents", "base", "experts", "picture")
MADE = {VERSION_KEY: VERSION}
SEED = 0
PICTURE_STEPS = 900
PARTS = 8
SIZE = TransformerSize()

TEXT = Stage(name="text", steps=300, learning_rate=2e-3)
VAE = Stage(name="vae", steps=1520, learning_rate=4e-3)
BASE = Stage(name="base", steps=3000, seed=1, learning_rate=2e-3, ema=0.998)
HIGH = Stage(name="high_noise", steps=350, seed=2, learning_rate=7e-4, ema=0.99)
LOW = Stage(name="low_noise", steps=500, seed=3, learning_rate=7e-4, ema=0.99)
PICTURE = Stage(name="picture", steps=2400, seed=4, learning_rate=1.5e-3, ema=0.99)

EXPERTS = (("diffusion_models", "i2v_high_noise"), ("diffusion_models", "i2v_low_noise"))
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
        base = self.base(latents, prompts)
        if last == "base":
            return
        self.experts(base, latents, prompts)
        if last == "experts":
            return
        self.picture(base, latents, prompts)

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
        metadata = MADE | {METADATA_KEY: json.dumps({"tokens": encoder.size.tokens})}
        write_safetensors(self._model("text_encoders", "umt5"), tensors, metadata)
        _as_shipped(encoder)
        return Prompts(encoder, pieces)

    def vae(self) -> VideoAutoencoder:
        torch.manual_seed(SEED)
        vae = VideoAutoencoder()
        start_still(vae)
        train_stage(VAE, vae, vae_loss(vae, VAE, PICTURE_STEPS), self.folder)
        fold(vae, seed=SEED + 20_000)
        write_safetensors(self._model("vae", "vae"), _shipped(vae.state_dict()), MADE)
        _as_shipped(vae)
        found = reconstruction_psnr(vae, render(draw_everything(24, seed=10_001)))
        logger.info("vae: %.2f dB mean, %.2f dB worst of 24 new clips", found.mean(), found.min())
        return vae

    def judge(self) -> None:
        """Measures what `run` has made and writes `figures.json`."""
        vae = VideoAutoencoder()
        vae.load_state_dict(_made(self._model("vae", "vae")))
        pairs = {}
        for name, high, low in (
            ("base", self.folder / "base.safetensors", self.folder / "base.safetensors"),
            ("experts", self._model(*EXPERTS[0]), self._model(*EXPERTS[1])),
        ):
            pair = WanTransformer(SIZE), WanTransformer(SIZE)
            for network, path in zip(pair, (high, low), strict=True):
                network.load_state_dict(_made(path))
            pairs[name] = pair
        painter = without_image(WanTransformer(SIZE))
        painter.load_state_dict(_made(self._model("diffusion_models", "t2v")))
        measure_family(pairs, painter, vae, self.text(), self.folder / "figures.json")

    def latents(self, vae: VideoAutoencoder) -> LatentSet:
        found = make_latents(vae, self.folder / "latents", PARTS, SEED + 30_000)
        deviation = found.clips.float().std(dim=(0, 2, 3, 4))
        logger.info("latents: %d clips, deviation %s", len(found.clips), deviation)
        return found

    def base(self, latents: LatentSet, prompts: Prompts) -> WanTransformer:
        base = WanTransformer(SIZE)
        start_quietly(base, SEED)
        train_stage(BASE, base, clip_loss(base, latents, prompts, WHOLE), self.folder)
        return base

    def experts(self, base: WanTransformer, latents: LatentSet, prompts: Prompts) -> None:
        for stage, within in ((HIGH, UPPER), (LOW, LOWER)):
            expert = WanTransformer(SIZE)
            expert.load_state_dict(base.state_dict())
            train_stage(stage, expert, clip_loss(expert, latents, prompts, within), self.folder)
            self._write_transformer(expert, f"i2v_{stage.name}")

    def picture(self, base: WanTransformer, latents: LatentSet, prompts: Prompts) -> None:
        network = without_image(base)
        train_stage(PICTURE, network, picture_loss(network, latents, prompts), self.folder)
        self._write_transformer(network, "t2v")

    def _write_transformer(self, network: WanTransformer, name: str) -> None:
        size = network.size
        config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
        write_safetensors(
            self._model("diffusion_models", name),
            _shipped(network.state_dict()),
            MADE | {"config": json.dumps(config)},
        )

    def _model(self, kind: str, name: str) -> Path:
        return self.folder / "models" / kind / f"{PREFIX}_{name}.safetensors"


def _made(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        raise UserError(
            f"{path} is not there.",
            "Only a family that is trained to its experts can be judged.",
            "Run `train` on the same folder first.",
        )
    return load_file(path)


def _shipped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half the size; float16, which leaves more of a small weight than bfloat16 does."""
    return {name: tensor.half() for name, tensor in tensors.items()}


def _as_shipped(network: torch.nn.Module) -> None:
    """Gives the network its weights as a reader of the file gets them: later stages build on these."""
    network.load_state_dict(_shipped(network.state_dict()))
    network.requires_grad_(False)
