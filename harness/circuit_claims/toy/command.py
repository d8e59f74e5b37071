"""What `claims train` does: text to tokenizer to packed rows to a trained run, each kept and taken up again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from circuit_claims.keeping.atomic import write_text_atomically
from circuit_claims.places import FIXTURES
from circuit_claims.toy.corpus import (
    Corpus,
    CorpusError,
    Mixture,
    documents,
    load_mixture,
    open_corpus,
    prepare,
    split_held_out,
)
from circuit_claims.toy.tokenizer import open_tokenizer, train_tokenizer
from circuit_claims.toy.training import Recipe, Step, Trainer, flops_per_token, matmul_peak

MIXTURE = FIXTURES / "attention_only" / "mixture.toml"
TOKENIZER_SHARE = 0.2
LONGEST = 200_000
ROOMY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}


def run_training(
    text: Path,
    into: Path,
    recipe: Recipe,
    *,
    mixture: Path = MIXTURE,
    tokenizer: Path | None = None,
    device: str = "cpu",
    most_steps: int | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Iterator[Step]:
    """Prepare the corpus under `into` unless it is there, then train; yields after each update.

    The tokenizer is trained on the text unless one is given. `most_steps` stops earlier, to go on with the same command
    later. Raises `CorpusError` and `RunError`, which say what to type.
    """
    if tokenizer is not None and not (into / "tokenizer.json").exists():
        into.mkdir(parents=True, exist_ok=True)
        write_text_atomically(into / "tokenizer.json", open_tokenizer(tokenizer).definition)
    corpus = prepared(text, into, load_mixture(mixture), recipe.n_ctx, tell)
    trainer = Trainer(recipe, corpus, into, device)
    peak = matmul_peak(torch.bfloat16 if recipe.precision == "bf16" else torch.float32)
    needed = flops_per_token(recipe.model)
    tell(f"matrix products here: {peak / 1e9:,.0f} GFLOP/s; this model: {needed / 1e6:.1f} MFLOP a token")
    for count, step in enumerate(trainer.advance(), start=1):
        yield replace(step, share_of_peak=step.tokens_per_second * needed / peak)
        if count == most_steps:
            break


def progress_line(step: Step, recipe: Recipe) -> str:
    """Where training stands: losses in nats, tokens a second, share of the machine's peak, time left."""
    to_read = recipe.tokens_before(recipe.steps) - recipe.tokens_before(step.number)
    left = to_read / step.tokens_per_second / 60
    test = "" if step.test_loss is None else f", test loss {step.test_loss:.4f}"
    return (
        f"step {step.number:,} of {recipe.steps:,}: loss {step.train_loss:.4f}{test}; {step.tokens_per_second:,.0f} "
        f"tokens/s, {step.share_of_peak:.0%} of the matrix peak; about {left:.0f} min left"
    )


def prepared(text: Path, into: Path, mixture: Mixture, n_ctx: int, tell: Callable[[str], None]) -> Corpus:
    """The run's corpus: opened where it is there, made from the files in `text` where not."""
    folder = into / "corpus"
    if (folder / "corpus.json").exists():
        return open_corpus(folder)
    missing = [source.file for source in mixture.source if not (text / source.file).is_file()]
    if missing:
        raise CorpusError(
            f"training text {text}\n  expected  the files of the mixture\n  found     no {', '.join(missing[:4])}"
            f"{' and others' if len(missing) > 4 else ''}\n  Give their folder, or a --mixture of the files you have."
        )
    path = into / "tokenizer.json"
    if path.exists():
        tokenizer = open_tokenizer(path)
    else:
        tell("training the tokenizer")
        tokenizer = train_tokenizer(tokenizer_text(text, mixture))
        write_text_atomically(path, tokenizer.definition)
    return prepare(text, mixture, tokenizer, n_ctx, folder, tell)


def tokenizer_text(folder: Path, mixture: Mixture) -> Iterator[str]:
    """What the tokenizer is trained on: the first fifth of each source's training documents, long ones cut."""
    for source in mixture.source:
        kept, _ = split_held_out(documents(folder, source, mixture.seed), mixture.held_out)
        size, most = 0, source.megabytes * 1e6 * TOKENIZER_SHARE
        for document in kept:
            if size > most:
                break
            size += len(document[:LONGEST].encode())
            yield document[:LONGEST]


def with_roomy_memory() -> None:
    """Start this process again with huge pages and freed memory kept, on Linux: a training step is a third faster.

    Each step frees and asks again for tables of tens of megabytes; by default the C library hands them back to the
    system each time, and a quarter of the time goes into page faults. glibc reads these settings at start only.
    """
    if sys.platform == "linux" and any(name not in os.environ for name in ROOMY):
        os.environ.update({name: os.environ.get(name, value) for name, value in ROOMY.items()})
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
