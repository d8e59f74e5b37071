"""Token ids of strings, and nothing that a tokenizer does behind one's back."""

from __future__ import annotations

from pathlib import Path

import pytest
from circuit_claims.models.errors import DamagedWeights
from circuit_claims.models.tokens import TokenTable
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.helpers.small_models import DEFAULT_WORDS, END_OF_TEXT, small_tokenizer


def table(change=lambda tokenizer: None) -> TokenTable:
    tokenizer = small_tokenizer()
    change(tokenizer)
    return TokenTable(tokenizer, "")


def with_bos(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)]
    )


def test_every_word_of_the_small_tokenizer_is_one_token_and_comes_back():
    tokens = table()
    ids = [tokens.single_token(word) for word in DEFAULT_WORDS]
    assert None not in ids
    assert [tokens.decode(token) for token in ids] == list(DEFAULT_WORDS)


def test_what_is_not_one_token_is_none():
    assert table().single_token("Mondayish") is None
    assert table().single_token("") is None


def test_no_special_token_is_put_in_front():
    tokens = table(with_bos)
    assert tokens.encode(" Monday") == [tokens.single_token(" Monday")]
    assert tokens.bos_id == 0


def test_a_token_in_front_is_told_from_one_behind():
    def with_eos(tokenizer: Tokenizer) -> None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, 0)]
        )

    assert table(with_eos).bos_id is None
    assert table().bos_id is None


def test_a_tokenizer_that_folds_case_has_no_token_for_capitals():
    words = Tokenizer(models.WordLevel({"monday": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = TokenTable(words, "")
    assert tokens.single_token("monday") == 0
    assert tokens.single_token("Monday") is None
    assert tokens.single_token("nonsense") is None


def test_truncation_and_padding_asked_for_in_the_file_are_switched_off(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens = TokenTable.from_file(tmp_path / "tokenizer.json")
    assert len(tokens.encode(" one two three four")) == 4
    assert len(tokens.encode(" one")) == 1


@settings(deadline=None)  # the first example imports transformers
@given(st.text(max_size=40))
def test_encoding_loses_nothing(text):
    tokens = table()
    joined = b"".join(piece_bytes(tokens, token) for token in tokens.encode(text))
    assert joined.decode("utf-8") == text


def piece_bytes(tokens: TokenTable, token: int) -> bytes:
    """The bytes of one byte-level token: single bytes of longer characters do not decode to text alone."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
    piece = tokens._tokenizer.id_to_token(token)
    return piece.encode() if piece == END_OF_TEXT else bytes(symbols[symbol] for symbol in piece)


def test_ids_outside_the_vocabulary_are_refused():
    tokens = table()
    assert tokens.vocab_size == 1 + 256 + sum(len(word) > 1 for word in DEFAULT_WORDS)
    with pytest.raises(ValueError, match=f"expected 0 to {tokens.vocab_size - 1}, found {tokens.vocab_size}"):
        tokens.decode(tokens.vocab_size)


def test_a_missing_or_broken_file_is_named(tmp_path: Path):
    with pytest.raises(DamagedWeights, match=r"no tokenizer at .*tokenizer.json"):
        TokenTable.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(DamagedWeights, match="is not a tokenizer"):
        TokenTable.from_file(tmp_path / "tokenizer.json")


def test_one_content_is_read_once_and_a_changed_file_anew(tmp_path):
    path = tmp_path / "tokenizer.json"
    for copy in (path, tmp_path / "copy.json"):
        small_tokenizer().save(str(copy))
    first = TokenTable.from_file(path)
    assert TokenTable.from_file(tmp_path / "copy.json") is first
    path.write_text(path.read_text() + "\n")
    assert TokenTable.from_file(path) is not first
    path.write_text("{")
    with pytest.raises(DamagedWeights):
        TokenTable.from_file(path)
