"""The attention-only models' tokenizer: byte-level BPE of 5,000 tokens, the space as id 220, BOS as id 4,999."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt16

from circuit_claims.errors import ClaimsError

if TYPE_CHECKING:
    import tokenizers

VOCABULARY = 5000
BOS = VOCABULARY - 1
SPACE = 220
BOS_TEXT = "<|bos|>"


class TokenizerError(ClaimsError, ValueError):
    """A tokenizer file that is not one of this project's runs."""


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back; `definition` is the tokenizer.json it was read from."""

    definition: str

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        from tokenizers import Tokenizer as Implementation

        made = Implementation.from_str(self.definition)
        # What is written in a text must never become the token that separates documents; the file does not keep this.
        made.encode_special_tokens = True
        return made

    @property
    def digest(self) -> str:
        """sha256 of the definition."""
        return hashlib.sha256(self.definition.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Number of tokens, BOS included."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> UInt16[np.ndarray, " n"]:
        """Token ids of a text, without BOS. The BOS string inside a text is text, not the token."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str], batch: int = 256) -> list[UInt16[np.ndarray, " n"]]:
        """Token ids of many texts, each without BOS."""
        found = []
        for start in range(0, len(texts), batch):
            rows = self._tokenizer.encode_batch_fast(texts[start : start + batch], add_special_tokens=False)
            found += [np.asarray(row.ids, dtype=np.uint16) for row in rows]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, BOS shown; bytes that are no UTF-8 become replacement characters."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE of `vocabulary` tokens: 256 bytes, merges by frequency, BOS last.

    Bytes come first in the order of their printable stand-ins, which puts the space at 220 as in GPT-2's alphabet.
    """
    from tokenizers import Tokenizer as Implementation
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = Implementation(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        ),
    )
    if made.get_vocab_size() != vocabulary - 1:
        raise TokenizerError(
            f"tokenizer: expected text enough for {vocabulary - 1:,} tokens, found {made.get_vocab_size():,}\n"
            "  Give more text."
        )
    made.add_special_tokens([BOS_TEXT])
    return open_definition(made.to_str(), vocabulary)


def open_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json of a run. Raises `TokenizerError` where the file is another kind of tokenizer."""
    try:
        return open_definition(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"tokenizer {path}\n  expected  the tokenizer.json of a run\n  found     {error}"
        ) from None


def open_definition(definition: str, vocabulary: int = VOCABULARY) -> Tokenizer:
    """Check that a definition has `vocabulary` tokens with the space and BOS in their places."""
    from tokenizers import Tokenizer as Implementation

    try:
        made = Implementation.from_str(definition)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise TokenizerError(f"tokenizer\n  expected  a tokenizer.json\n  found     {error}") from None
    found = (made.get_vocab_size(), made.token_to_id("Ġ"), made.token_to_id(BOS_TEXT))
    if found != (vocabulary, SPACE, vocabulary - 1):
        raise TokenizerError(
            f"tokenizer\n  expected  {vocabulary} tokens, the space as id {SPACE}, {BOS_TEXT} as id {vocabulary - 1}\n"
            f"  found     {found[0]} tokens, the space as {found[1]}, {BOS_TEXT} as {found[2]}"
        )
    return Tokenizer(definition)
