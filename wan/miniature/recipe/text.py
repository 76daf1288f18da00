"""Trains the tokenizer and the text encoder: what a caption says can be read off its embedding."""

from __future__ import annotations

from dataclasses import replace

import sentencepiece
import torch
from torch import nn
from torch.nn import functional as F

from ..captions import TEMPLATES, caption, unknown_motion
from ..layouts import TextEncoderSize
from ..random_family import CORPUS, train_tokenizer
from ..umt5 import PAD, TextEncoder, tokenize
from ..world import COLOURS, GROUNDS, LOOKS, MOTIONS, SHAPES, SIZES_PX, Scene, draw_scenes
from .stage import LossAt, Stage

SIZE = TextEncoderSize(vocabulary=480)
BATCH = 64
WORDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES_PX),
    "ground": GROUNDS,
    "look": LOOKS,
    "motion": tuple(MOTIONS),
}
NOT_SAID = -100
"""The class that cross entropy leaves out."""


def make_tokenizer(seed: int) -> bytes:
    """Pieces of the world's captions, of words that it does not know, and of plain English."""
    generator = torch.Generator().manual_seed(seed)
    scenes = draw_all(600, seed)
    said = [caption(scene, i % len(TEMPLATES)) for i, scene in enumerate(scenes)]
    words = sorted({word for sentence in said for word in sentence.strip(".").split()})
    strange = [caption(scene, 0, unknown_motion(generator)) for scene in scenes]
    return train_tokenizer([*strange, *CORPUS], SIZE.vocabulary, words)


def draw_all(count: int, seed: int) -> list[Scene]:
    """Every word that the captions can hold; like the real UMT5 this one knows more words than the base."""
    return draw_scenes(count, seed=seed, motions=tuple(MOTIONS), looks=LOOKS)


class Reader(nn.Module):
    """The encoder under training, with the layers that read its embeddings; those are thrown away."""

    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.text_encoder = TextEncoder(size)
        self.attributes = nn.ModuleDict(
            {name: nn.Linear(size.width, len(words)) for name, words in WORDS.items()}
        )
        self.pieces = nn.Linear(size.width, size.vocabulary)


def new_reader(pieces: sentencepiece.SentencePieceProcessor, seed: int) -> Reader:
    """A reader with the weights of a young T5: queries are small, since its attention does not scale."""
    torch.manual_seed(seed)
    reader = Reader(replace(SIZE, vocabulary=pieces.get_piece_size()))
    with torch.no_grad():
        for name, tensor in reader.text_encoder.named_parameters():
            if name.endswith("SelfAttention.q.weight"):
                tensor.mul_((SIZE.heads / SIZE.width) ** 0.5)
            elif name.endswith("relative_attention_bias.weight"):
                tensor.mul_(0.1)
    return reader


def text_loss(reader: Reader, pieces: sentencepiece.SentencePieceProcessor, stage: Stage) -> LossAt:
    """The scene's words from the mean over the tokens, and each token from its own embedding.

    Words that stand in the same places (left, right) must stay apart, so nothing is masked and
    guessed: that would draw them together.
    """
    del stage

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        del step
        scenes = draw_all(BATCH, int(torch.randint(2**31, (), generator=generator)))
        strange = torch.rand(BATCH, generator=generator) < 0.25
        prompts = [
            caption(s, i % len(TEMPLATES), unknown_motion(generator) if strange[i] else None)
            for i, s in enumerate(scenes)
        ]
        tokens = tokenize(pieces, prompts, SIZE.tokens)
        embedding = reader.text_encoder(tokens)
        known = (tokens != PAD).unsqueeze(-1)
        summary = embedding.sum(1) / known.sum(1)
        loss = F.cross_entropy(reader.pieces(embedding)[known[..., 0]], tokens[known[..., 0]])
        for name, words in WORDS.items():
            said = torch.tensor([words.index(getattr(scene, name)) for scene in scenes])
            if name == "motion":
                said[strange] = NOT_SAID
            loss = loss + F.cross_entropy(reader.attributes[name](summary), said)
        return loss

    return loss_at
