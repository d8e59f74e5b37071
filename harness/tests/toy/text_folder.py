"""A small folder of training text and its mixture, made up on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WORDS = 4_000


def write_texts(folder: Path, documents: int = 60) -> Path:
    """Two sources of made-up words, one compressed, and `mixture.toml` beside them."""
    import zstandard

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), size=rng.integers(2, 8))) for _ in range(WORDS)]
    for name in ("one.jsonl", "two.jsonl.zst"):
        texts = [" ".join(rng.choice(words, size=400)) for _ in range(documents)]
        lines = "".join(json.dumps({"text": text, "meta": {"set": name}}) + "\n" for text in texts)
        data = lines.encode() if name.endswith("l") else zstandard.compress(lines.encode())
        (folder / name).write_bytes(data)
    source = '[[source]]\nfile = "{}"\nstands_for = "words"\nlicence = "CC0"\nmegabytes = 1.0\n'
    mixture = "seed = 3\nheld_out = 0.1\n" + source.format("one.jsonl") + source.format("two.jsonl.zst")
    (folder / "mixture.toml").write_text(mixture)
    return folder
