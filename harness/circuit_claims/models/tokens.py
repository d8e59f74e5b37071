"""Token ids of strings, from a tokenizer.json alone: no transformers, no special tokens added behind one's back."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from tokenizers import Tokenizer

from circuit_claims.models.errors import DamagedWeights


class TokenTable:
    """What a tokenizer does to text, as claims need it.

    Truncation and padding that a tokenizer.json may ask for are switched off: a text's ids are all of its ids.

    >>> TokenTable.from_file(Path("tokenizer.json")).single_token(" Monday")   # doctest: +SKIP
    12397
    """

    _read: ClassVar[dict[str, TokenTable]] = {}

    def __init__(self, tokenizer: Tokenizer, digest: str) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._single: dict[str, int | None] = {}
        self.digest = digest

    @classmethod
    def from_file(cls, path: Path) -> TokenTable:
        """The table of a tokenizer.json; raises `DamagedWeights` if it cannot be read as one."""
        try:
            data = Path(path).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            # A run opens each model once a test, and reading a large table takes half a second: one a content.
            if digest not in cls._read:
                cls._read[digest] = cls(Tokenizer.from_str(data.decode("utf-8")), digest)
            return cls._read[digest]
        except FileNotFoundError as error:
            raise DamagedWeights(
                f"no tokenizer at {path}: expected a tokenizer.json beside the weights"
                "\n  Save it once with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            ) from error
        except Exception as error:  # tokenizers raises plain Exception
            raise DamagedWeights(f"{path} is not a tokenizer: {error}") from error

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and of nothing else: no beginning-of-sequence token is put in front."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """For each id of `encode(text)` the characters it stands for, as (first, one past the last)."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    def decode(self, token: int) -> str:
        """The text one id stands for, special tokens too; raises `ValueError` for an id outside the vocabulary."""
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token id: expected 0 to {self.vocab_size - 1}, found {token}")
        return self._tokenizer.decode([token], skip_special_tokens=False)

    def single_token(self, text: str) -> int | None:
        """The id of `text` if it is one token that decodes to exactly `text`, else None.

        The way back is checked because normalisers change text: a table that folds case would give "Monday" and
        "MONDAY" one id.
        """
        if text not in self._single:
            ids = self.encode(text)
            there = len(ids) == 1 and self._tokenizer.decode(ids, skip_special_tokens=False) == text
            self._single[text] = ids[0] if there else None
        return self._single[text]

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id, added tokens included. The model's own matrix may have more rows."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def bos_id(self) -> int | None:
        """The token the model expects in front of every text, or None for a model trained without one.

        Read from what the tokenizer puts in front by itself; many name such a token and never use it.
        """
        plain, dressed = self.encode("a"), self._tokenizer.encode("a", add_special_tokens=True).ids
        return dressed[0] if len(dressed) > len(plain) and dressed[: len(plain)] != plain else None
