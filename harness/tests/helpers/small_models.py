"""Small random models of the five architectures, saved as Hugging Face folders, for the tests of every part.

Norm weights and biases are drawn too (their usual start, ones and zeros, would hide a forgotten bias or norm), and the
heads of the grouped-query models share value heads in pairs, so that a wrong mapping changes the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "qwen2", "gemma3_text")
END_OF_TEXT = "<|endoftext|>"
D_MODEL, N_HEADS, N_KV_HEADS, D_HEAD, D_MLP, N_CTX = 32, 4, 2, 8, 48, 64


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
NUMBERS = _words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
ORDINALS = _words("first second third fourth fifth sixth seventh eighth ninth tenth")
ROMAN = _words("I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX")


def _default_words() -> tuple[str, ...]:
    """The strings of the succession dataset (numbers up to 20), each plain and after a space."""
    prefixes = [day[:3] for day in DAYS] + [month[:3] for month in MONTHS]
    letters = [chr(ord("A") + place) for place in range(26)]
    digits = [str(number) for number in range(21)]
    plain = [*DAYS, *MONTHS, *NUMBERS, *ORDINALS, *ROMAN, *prefixes, *letters, *digits, "the", "and", "of"]
    return tuple(dict.fromkeys([*plain, *(f" {word}" for word in plain)]))


DEFAULT_WORDS = _default_words()


def small_tokenizer(words: Sequence[str] = DEFAULT_WORDS) -> Tokenizer:
    """A byte-level tokenizer in which each of `words` is one token (if GPT-2's splitting keeps it whole).

    Ids: 0 is the end-of-text token, then the 256 byte symbols in sorted order, then the words as given.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = ["".join(piece for piece, _ in splitter.pre_tokenize_str(word)) for word in words]
    vocabulary = {symbol: index for index, symbol in enumerate(dict.fromkeys([END_OF_TEXT, *alphabet, *symbols]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def small_config(architecture: str, vocab_size: int, *, n_layers: int = 2, tied: bool = True) -> Any:
    """The transformers configuration of one small model; raises `ValueError` for an unknown architecture."""
    import transformers

    shared = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    modern = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": n_layers,
        "num_attention_heads": N_HEADS,
        "intermediate_size": D_MLP,
        "max_position_embeddings": N_CTX,
    }
    grouped = {**modern, "num_key_value_heads": N_KV_HEADS}
    if architecture == "gpt2":
        shape = {"n_embd": D_MODEL, "n_layer": n_layers, "n_head": N_HEADS, "n_inner": D_MLP, "n_positions": N_CTX}
        return transformers.GPT2Config(**shared, **shape)
    if architecture == "gpt_neox":
        return transformers.GPTNeoXConfig(**shared, **modern)
    if architecture == "llama":
        return transformers.LlamaConfig(**shared, **grouped, head_dim=D_HEAD)
    if architecture == "qwen2":
        return transformers.Qwen2Config(**shared, **grouped)
    if architecture == "gemma3_text":
        # Wider heads than d_model / n_heads, as in the released Gemma 3 models.
        return transformers.Gemma3TextConfig(
            **shared, **grouped, head_dim=2 * D_HEAD, query_pre_attn_scalar=2 * D_HEAD, sliding_window=8
        )
    raise ValueError(f"unknown architecture {architecture!r}: expected one of {', '.join(ARCHITECTURES)}")


def _draw_parameters(model: torch.nn.Module, seed: int) -> None:
    """Fill every parameter from one generator: matrices with spread 0.2, norm weights and biases around their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(0.2 * noise)


def save_small_model(
    architecture: str,
    folder: Path,
    *,
    seed: int = 0,
    n_layers: int = 2,
    tied: bool = True,
    vocab_words: Sequence[str] = DEFAULT_WORDS,
) -> Path:
    """Save a random model with its tokenizer as a Hugging Face folder (fp32 safetensors) and return the folder.

    The model has 4 heads (2 key-value heads where the architecture groups them) of width 8 (16 for gemma3_text), 32
    residual dimensions, and one token for each of `vocab_words`. The same seed gives the same bytes.
    """
    import transformers

    tokenizer = small_tokenizer(vocab_words)
    config = small_config(architecture, tokenizer.get_vocab_size(), n_layers=n_layers, tied=tied)
    with torch.random.fork_rng():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    _draw_parameters(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return folder
