"""The positive control on text: a small model with one head that reads lists and adds one, and lists for it to read.

Head L1H2 attends to the token it stands on and writes the code of that token's successor, more strongly than the random
heads beside it write anything. Attention in layer 0 is silenced, so that what the head reads is the token alone. In the
made-up text runs of days, months, letters and digits follow one another: every case inside a run involves succession.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Context
from circuit_claims.papers.successor_heads.dataset import DIGITS, PAPER_TASKS, Task, spell
from circuit_claims.texts import Document, Text

if TYPE_CHECKING:
    from torch import Tensor

    from circuit_claims.models.resolve import LocalModel
    from circuit_claims.models.tokens import TokenTable

HEAD = (1, 2)
TASKS: tuple[Task, ...] = (
    DIGITS,
    *(task for task in PAPER_TASKS if task.name in ("days", "months", "letters")),
)
FORM = "space"
SHARPNESS = 4.0
LOUDNESS = 4.0
DOCUMENTS, RUNS = 72, 40


@dataclass(frozen=True)
class PlantedReader:
    """The planted model as a subject that reads text; measured like any other."""

    context: Context
    seed: int = 0
    name: str = "planted reader"

    def identity(self) -> dict[str, Any]:
        """The digests of the planted weights and of their tokenizer."""
        return {"model": self.model.digest, "tokenizer": self.tokens.digest}

    @cached_property
    def model(self) -> LocalModel:
        """The planted model's files, in a temporary folder of this process."""
        return _saved(self.seed)

    @cached_property
    def tokens(self) -> TokenTable:
        """The planted tokenizer."""
        return self.model.tokenizer()


def planted_text(seed: int = 0) -> Text:
    """Documents of runs of list items, three to six long, from lists and places drawn at random, full stops between."""
    generator = np.random.default_rng(seed)
    documents = tuple(Document(f"made up {number}", _runs(generator)) for number in range(DOCUMENTS))
    return Text("planted lists", "made-up runs of list items", documents, {"from": f"drawn with seed {seed}"})


def _runs(generator: np.random.Generator) -> str:
    words: list[str] = []
    for _ in range(RUNS):
        items = TASKS[generator.integers(len(TASKS))].items
        length = int(generator.integers(3, 7))
        start = int(generator.integers(len(items) - length + 1))
        words += [*(spell(item, FORM) for item in items[start : start + length]), "."]
    return "".join(words)


@cache
def _saved(seed: int) -> LocalModel:
    from circuit_claims.models.resolve import resolve

    folder = tempfile.TemporaryDirectory(prefix="planted-reader-")
    atexit.register(folder.cleanup)
    save_reader(Path(folder.name) / "planted-reader", seed)
    return resolve(Path(folder.name) / "planted-reader", cache_dir=Path(folder.name) / "cache")


def save_reader(folder: Path, seed: int = 0) -> Path:
    """The planted model as a Hugging Face folder with a tokenizer that has each list item as one token."""
    import torch
    from safetensors.torch import save_file

    from circuit_claims.heads.planted import plant, random_tensors, small_config, word_symbol, word_tokenizer

    tokenizer = word_tokenizer([spell(item, FORM) for task in TASKS for item in task.items])
    orders = [[tokenizer.token_to_id(word_symbol(spell(item, FORM))) for item in task.items] for task in TASKS]
    generator = torch.Generator().manual_seed(seed)
    config = small_config("llama", sum(map(len, orders)), tokenizer.get_vocab_size())
    table = random_tensors({**config, "max_position_embeddings": 512}, generator)
    table = replace(table, tensors={**table.tensors, "model.layers.0.self_attn.o_proj.weight": _silent(table.tensors)})
    cyclic = [task.cyclic for task in TASKS]
    table = plant(table, orders, head=HEAD, generator=generator, cyclic=cyclic, path="residual")
    tensors = _attends_to_itself(table.tensors, table.config)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(folder / "model.safetensors"),
              metadata={"format": "pt"})  # fmt: skip
    (folder / "config.json").write_text(json.dumps(dict(table.config), indent=1), encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _silent(tensors: Mapping[str, Tensor]) -> Tensor:
    return tensors["model.layers.0.self_attn.o_proj.weight"] * 0.0


def _attends_to_itself(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The head's queries are its keys, so that no position matches better than its own; its write is made louder."""
    here, changed = f"model.layers.{HEAD[0]}.self_attn.", dict(tensors)
    width, heads = config["head_dim"], config["num_attention_heads"]
    shared = HEAD[1] // (heads // config["num_key_value_heads"])
    for name in ("q_proj", "k_proj", "o_proj"):
        changed[f"{here}{name}.weight"] = tensors[f"{here}{name}.weight"].clone()
    keys = changed[f"{here}k_proj.weight"].unflatten(0, (-1, width))
    queries = changed[f"{here}q_proj.weight"].unflatten(0, (-1, width))
    keys[shared] *= SHARPNESS
    queries[HEAD[1]] = keys[shared]
    changed[f"{here}o_proj.weight"].unflatten(1, (-1, width))[:, HEAD[1]] *= LOUDNESS
    return changed


def list_items(text: Sequence[str]) -> list[bool]:
    """Whether each token string is an item of the planted lists."""
    known = {spell(item, FORM) for task in TASKS for item in task.items}
    return [token in known for token in text]
