"""Everything that waits for an accelerator, in one call of at most nine minutes; the next call goes on.

    python harness/benchmarks/on_gpu.py --into FOLDER --corpus RUN/corpus

First the tests marked gpu; then how fast coefficients are (all 16 heads of the two-layer model, 4 chains of 200 draws
on batches of 32 rows of 1,024: to be done in under a minute); then the paper's full training run, 50,000 steps of 100
rows of 1,024, in pieces that save and go on. What is done is kept in FOLDER/on_gpu.json, one entry a part. Where only
small files can be brought back, `--piece-mb 15` leaves the folder's large files in pieces, which the next call joins.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from circuit_claims.keeping.atomic import write_bytes_atomically, write_text_atomically
from circuit_claims.llc.refined import refined_llc
from circuit_claims.running.machine import choose_device
from circuit_claims.toy.corpus import open_corpus
from circuit_claims.toy.model import AttentionOnly
from circuit_claims.toy.training import Recipe, Trainer, flops_per_token, matmul_peak

DONE, PIECE = "on_gpu.json", ".piece"
HEADS = tuple(f"{layer}:{head}" for layer in range(2) for head in range(8))
SAVE_EVERY = 500


def main(words: list[str] | None = None) -> None:
    """Do what is not done yet, as far as the minutes reach."""
    typed = arguments(words)
    device, ends = choose_device(typed.device, tf32=typed.tf32), monotonic() + 60 * typed.minutes
    typed.into.mkdir(parents=True, exist_ok=True)
    join_pieces(typed.into)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "tests": gpu_tests,
        "coefficients": lambda: coefficients(device, typed.rows, typed.draws),
        "training": lambda: training(typed, device, ends),
    }
    for name, part in parts.items():
        if name in typed.parts and not done(typed.into).get(name, {}).get("finished") and monotonic() < ends:
            found = part()
            print(name, json.dumps(found), flush=True)
            entries = {**done(typed.into), name: {**found, "torch": torch.__version__, "device": device_name(device)}}
            write_text_atomically(typed.into / DONE, json.dumps(entries, indent=1) + "\n")
    if typed.piece_mb:
        cut_into_pieces(typed.into, typed.piece_mb)


def arguments(words: list[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="python harness/benchmarks/on_gpu.py", description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="where results and the run are kept")
    parser.add_argument("--corpus", type=Path, help="a prepared corpus with rows of the run's context")
    parser.add_argument("--parts", default="tests,coefficients,training", type=lambda typed: typed.split(","))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--tf32", action="store_true", help="products of fp32 numbers with 10 bits")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rows", type=int, default=32, help="rows of 1,024 a draw")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--piece-mb", type=int, default=0)
    return parser.parse_args(words)


def done(into: Path) -> dict[str, dict[str, Any]]:
    """What earlier calls found, by part."""
    path = into / DONE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def device_name(device: str) -> str:
    """The accelerator as its driver names it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def gpu_tests() -> dict[str, Any]:
    """The tests marked gpu, in a process of their own."""
    began = monotonic()
    ran = subprocess.run([sys.executable, "-m", "pytest", "harness/tests", "-q", "-m", "gpu", "-p", "no:cacheprovider"])
    return {"finished": ran.returncode == 0, "status": ran.returncode, "seconds": monotonic() - began}


def coefficients(device: str, rows: int, draws: int) -> dict[str, Any]:
    """Seconds for every head's coefficient, and the share of the bandwidth that one write and read of logits takes."""
    model = AttentionOnly().initialise(seed=1).to(device)
    data = torch.randint(0, 4_999, (16 * rows, 1_024), generator=torch.Generator().manual_seed(0)).to(device)
    run = {"n_beta": 30.0, "gamma": 200.0, "eps": 1e-3, "batch_size": rows, "num_chains": 4, "num_draws": draws}
    began = monotonic()
    each = {head: refined_llc(model, data, weights=head, **run).mean for head in HEADS}
    seconds, moved = monotonic() - began, 2 * 4 * len(HEADS) * 4 * draws * rows * 1_023 * 5_000
    share = moved / seconds / bandwidth(device)
    return {"finished": True, "seconds": seconds, "share of bandwidth": share, "coefficients": each}


def bandwidth(device: str, size: int = 1 << 28, repeats: int = 5) -> float:
    """Bytes a second that a copy reads and writes on the device, the best of a few."""
    source, best = torch.zeros(size, device=device), float("inf")
    for _ in range(repeats):
        began = perf_counter()
        source.clone()[0].item()  # an accelerator has to be waited for
        best = min(best, perf_counter() - began)
    return 2 * 4 * size / best


def training(typed: argparse.Namespace, device: str, ends: float) -> dict[str, Any]:
    """The paper's run from where it stands, until the minutes are over; saved at the last multiple of `SAVE_EVERY`."""
    if typed.corpus is None:
        raise SystemExit("training: expected a prepared corpus, found none\n  Type: --corpus RUN/corpus")
    corpus = open_corpus(typed.corpus)
    recipe = Recipe(steps=typed.steps, batch=typed.batch, n_ctx=corpus.n_ctx, precision=typed.precision)
    trainer = Trainer(recipe, corpus, typed.into / "run", device, save_every=SAVE_EVERY)
    step = None
    for step in trainer.advance():
        if step.reported:
            print(f"step {step.number:,}: {step.train_loss:.4f}, {step.tokens_per_second:,.0f} tokens/s", flush=True)
        if monotonic() > ends and step.number % SAVE_EVERY == 0:
            break
    speed = step.tokens_per_second if step else float("nan")
    share = speed * flops_per_token(recipe.model) / matmul_peak(torch.bfloat16, 1 << 13, device=device)
    finished = trainer.step == recipe.steps
    return {"finished": finished, "step": trainer.step, "tokens a second": speed, "share of the bf16 peak": share}


def cut_into_pieces(folder: Path, megabytes: int) -> None:
    """Every file of the folder that is larger, replaced by pieces of that size: NAME.piece0, NAME.piece1, ..."""
    size = megabytes * 1_000_000
    for path in [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > size]:
        content = path.read_bytes()
        for number, start in enumerate(range(0, len(content), size)):
            write_bytes_atomically(path.with_name(f"{path.name}{PIECE}{number}"), content[start : start + size])
        path.unlink()


def join_pieces(folder: Path) -> None:
    """What `cut_into_pieces` cut, whole again."""
    for first in list(folder.rglob(f"*{PIECE}0")):
        whole, number = first.with_name(first.name.removesuffix(f"{PIECE}0")), 0
        pieces = []
        while (piece := whole.with_name(f"{whole.name}{PIECE}{number}")).exists():
            pieces.append(piece)
            number += 1
        write_bytes_atomically(whole, b"".join(piece.read_bytes() for piece in pieces))
        for piece in pieces:
            piece.unlink()


if __name__ == "__main__":
    main()
