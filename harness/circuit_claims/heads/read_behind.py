"""Tokens read behind prefixes that are read once: what prompts share is not run again for each of them.

A decoder's keys and values of a prefix do not depend on what follows it, so one pass over the prefixes serves every
token, and every edit of a token, that is read behind them. Nothing here knows a model library: a transformer-lens
bridge comes in as an argument, and what it hands out as its cache goes back to it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

Hooks = list[tuple[str, Callable[..., Tensor | None]]]


@dataclass(frozen=True)
class Prefixes:
    """Prefixes of one length and what the model keeps of them; `kept` is None for prefixes of no token."""

    kept: Any
    device: str

    @classmethod
    def read(
        cls, bridge: Any, prefixes: Sequence[Sequence[int]], device: str = "cpu", hooks: Hooks | None = None
    ) -> Prefixes:
        """Run prefixes of one length, all at once. `bridge` needs `run_with_hooks(return_type="logits_and_cache")`."""
        tokens = torch.tensor([list(prefix) for prefix in prefixes], dtype=torch.long, device=device)
        if tokens.shape[1] == 0:
            return cls(None, device)
        with torch.no_grad():
            _, kept = bridge.run_with_hooks(
                tokens, fwd_hooks=hooks or [], return_type="logits_and_cache", use_cache=True, logits_to_keep=1
            )
        return cls(kept, device)

    def at(self, rows: Int[Tensor, " row"]) -> dict[str, Any]:
        """What a run needs to read one token behind each of these prefixes; a prefix may be named many times.

        Each call gives a copy, since a run adds its own tokens to what it is given.
        """
        if self.kept is None:
            return {}
        kept = copy.deepcopy(self.kept)
        kept.batch_select_indices(rows.to(self.device))
        return {"past_key_values": kept}
