"""Texts as the pieces that a CLIP's own tokenizer makes of them."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import comfy.sd
import torch
from comfy.sd1_clip import SDTokenizer
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

from ...wan.errors import UserError
from ...wan.text_encoder import TEXT_TOKENS
from ...wan.trigger_neighbours import Vocabulary, vocabulary_of

EMBEDDING = "<embedding>"
# Made once for a tokenizer: 256,000 pieces take a moment.
_vocabularies: WeakKeyDictionary[SPieceTokenizer, Vocabulary] = WeakKeyDictionary()


class ClipTokens:
    """The tokenizer of a CLIP, through the host's own `tokenize`: its prompt weights and embeddings included.

    Raises `UserError` for a CLIP whose tokenizer is not sentencepiece, as Wan's UMT5 has it.
    """

    def __init__(self, clip: comfy.sd.CLIP) -> None:
        name = getattr(clip.tokenizer, "clip", "")
        part: Any = getattr(clip.tokenizer, name, None)
        if not isinstance(part, SDTokenizer) or not isinstance(part.tokenizer, SPieceTokenizer):
            raise UserError(
                f"The tokenizer of clip is a {type(clip.tokenizer).__name__}.",
                "Wan's text encoder is a UMT5, whose tokenizer is a sentencepiece model.",
                "Connect a umt5 loaded with type wan.",
            )
        self._clip, self._part = clip, part
        self.limit: int = part.min_length or TEXT_TOKENS
        """Tokens that the model is made for, the end included: what a short prompt is padded to."""

    def pieces(self, text: str) -> list[str]:
        """The pieces without the end and the padding."""
        batches = self._clip.tokenize(text)[self._clip.tokenizer.clip_name]
        tokens = [token for batch in batches for token, *_ in batch]
        while tokens and not torch.is_tensor(tokens[-1]) and tokens[-1] == self._part.pad_token:
            tokens.pop()
        if tokens and not torch.is_tensor(tokens[-1]) and tokens[-1] == self._part.end_token:
            tokens.pop()
        return [EMBEDDING if torch.is_tensor(t) else self._part.inv_vocab[t] for t in tokens]

    @property
    def vocabulary(self) -> Vocabulary:
        """The whole words that the tokenizer has as one piece."""
        tokenizer = self._part.tokenizer
        if tokenizer not in _vocabularies:
            _vocabularies[tokenizer] = vocabulary_of(tokenizer.tokenizer)
        return _vocabularies[tokenizer]

    def count(self, text: str) -> int:
        """Tokens of a text with its end, as they reach the encoder."""
        return len(self.pieces(text)) + 1
