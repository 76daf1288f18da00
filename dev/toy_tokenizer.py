"""A sentencepiece model that knows a few words, for the tests of triggers."""

from __future__ import annotations

import io
from typing import Any

import sentencepiece

LETTERS = "0123456789 [] () {} . b c d f g h j k q v x y z A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"
CORPUS = [
    *["a person turns into a woman while the camera stands still"] * 60,
    *["the woman walks into the light, a person turns"] * 60,
    *["one MERMAID and one mermaid"] * 20,
    *["perora wander radix matrix"] * 20,
    LETTERS,
]


def trained_pieces(vocabulary: int, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """A model of `vocabulary` pieces of byte-pair encoding; `options` as sentencepiece's trainer has them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
