"""One attention head as a potential, on an exact cached prefix: the speed path of the attention-only model.

For a head of the last layer nothing is d x vocab in a step but one small product: with z what the head has gathered,
logits = a (N + z M) + b, where N (everything else of the sequence, read by the vocabulary) is known and M = W_O W is
d_head x vocab. Gradients go to z and W_O alone. A head of an earlier layer runs the later layers in full.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.errors import InputError
from circuit_claims.llc.losses import DivergenceFrom, Loss, NextToken
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.llc.slices import WeightSlice
from circuit_claims.toy.attention import attend
from circuit_claims.toy.potentials.fused import weigh
from circuit_claims.toy.potentials.prefix import AttentionPrefix, RowTable
from circuit_claims.toy.potentials.readout import LogSumExp, buffers, chunks

if TYPE_CHECKING:
    from circuit_claims.toy.model import AttentionOnly

PARTS = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")


def potential_of(
    model: AttentionOnly,
    data: Int[Tensor, "rows pos"],
    where: WeightSlice,
    loss: Loss,
    *,
    prefix: AttentionPrefix | None = None,
    cache_bytes: int = 2 << 30,
    readout_dtype: torch.dtype = torch.float32,
) -> HeadPotential | None:
    """The cached loss over one head's weights; None where `where` is no head or `loss` is not built in.

    `prefix` is that of another head of the layer. Raises ValueError where it is of another model, data or layer.
    """
    head = where.head
    if head is None or not isinstance(loss, NextToken | DivergenceFrom):
        return None
    if prefix is None:
        prefix = AttentionPrefix(model, data, head[0], loss, cache_bytes=cache_bytes, dtype=readout_dtype)
    elif (prefix.model is not model) or prefix.layer != head[0] or prefix.data is not data:
        raise InputError(f"prefix: expected one of this model, this data and layer {head[0]}, found another")
    return HeadPotential(prefix, where, head[1])


class HeadPotential:
    """The loss as a function of one head's weights, `where` being its slice (with or without biases).

    `thread_safe`: chains may call it from several threads.
    """

    thread_safe = True

    def __init__(self, prefix: AttentionPrefix, where: WeightSlice, head: int) -> None:
        self.prefix, self.where, self.head = prefix, where, head
        self.num_rows = prefix.num_rows
        attention = prefix.model.blocks[prefix.layer].attn
        self.w_star = where.gather(dict(prefix.model.named_parameters()))
        self._star = {name: getattr(attention, name)[head : head + 1].detach() for name in PARTS}
        self._names = [piece.name.rsplit(".", 1)[-1] for piece in where.pieces]
        spare = prefix.spare_bytes
        self._rest = RowTable(self._rest_of, self.num_rows, max(spare, 0))
        width = prefix.model.config.d_model
        self._numerators = RowTable(self._read_rest, self.num_rows, max(spare - 4 * width * prefix.length, 0))
        self._constants = RowTable(self._constants_of, self.num_rows, max(spare, 0))
        self._own = threading.local()

    def start(self) -> Float[Tensor, " d"]:
        """A copy of the head's own numbers."""
        return self.w_star.clone()

    def value_at_start(self, chains: int, rows: Int[Tensor, "chain batch"]) -> Float[Tensor, " chain"]:
        """The loss of w* on each batch, from the table of sequences."""
        return torch.stack([self.prefix.start_losses.rows(each).mean() for each in rows])

    def value_and_grad(self, w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """One chain after another; each is a few large products already."""
        pairs = [self._one(each, batch, grad=True) for each, batch in zip(w, rows, strict=True)]
        return torch.stack([value for value, _ in pairs]), torch.stack([grad for _, grad in pairs])

    def value(self, w: Tensor, rows: Tensor) -> Tensor:
        """The loss alone."""
        return torch.stack([self._one(each, batch, grad=False)[0] for each, batch in zip(w, rows, strict=True)])

    def precision_error(self, run: SGLDSettings) -> dict[str, float]:
        """What a low-precision readout costs: loss and relative gradient error a typical step away from w*, one batch.

        Empty for the readout in fp32.
        """
        prefix = self.prefix
        if prefix.readout.coarse is None:
            return {}
        exact = AttentionPrefix(prefix.model, prefix.data, prefix.layer, prefix.loss, cache_bytes=0)
        twin = HeadPotential(exact, self.where, self.head)
        noise = torch.randn(self.w_star.shape, generator=torch.Generator().manual_seed(run.seed))
        point = (self.w_star + (run.eps * 10) ** 0.5 * noise.to(self.w_star.device))[None]
        rows = torch.arange(min(run.batch_size or prefix.num_rows, prefix.num_rows))[None]
        low, low_grad = self.value_and_grad(point, rows)
        high, high_grad = twin.value_and_grad(point, rows)
        return {
            "low_precision_loss_error": float((low - high).abs()),
            "low_precision_gradient_error": float((low_grad - high_grad).norm() / high_grad.norm()),
        }

    def _one(self, w: Tensor, rows: Tensor, *, grad: bool) -> tuple[Tensor, Tensor]:
        parts = dict(zip(self._names, self.where.split(w.detach()), strict=True))
        for part in parts.values():
            part.requires_grad_(grad)
        weights = {**self._star, **parts}
        with torch.set_grad_enabled(grad):
            mixed = self._mix(self.prefix.normed.rows(rows), weights)
            run = self._last_layer if self.prefix.is_last else self._earlier_layer
            return run(mixed, weights, list(parts.values()), rows)

    def _mix(self, normed: Float[Tensor, "batch pos d"], weights: dict[str, Tensor]) -> Float[Tensor, "batch pos k"]:
        """What the head gathers; positions enter queries and keys as one small product of their own."""
        query_key = torch.cat([weights["W_Q"], weights["W_K"]], -1)[0]  # (d, 2k)
        flat = normed.flatten(0, 1) @ torch.cat([query_key, weights["W_V"][0]], -1)
        size = weights["W_V"].shape[-1]
        located = self.prefix.positions @ query_key + torch.cat([weights["b_Q"], weights["b_K"]], -1)
        added = torch.cat([located, weights["b_V"].expand(len(located), -1)], -1)
        query, key, value = (flat.view(*normed.shape[:2], -1) + added)[:, None].split(size, -1)
        return attend(query, key, value)[:, 0]

    @torch.no_grad()
    def _rest_of(self, rows: Tensor) -> Float[Tensor, "batch pos d"]:
        """The stream behind the layer without this head, centred for a head of the last layer."""
        rest = (
            self.prefix.after.rows(rows) - self._mix(self.prefix.normed.rows(rows), self._star) @ self._star["W_O"][0]
        )
        return rest - rest.mean(-1, keepdim=True) if self.prefix.is_last else rest

    @torch.no_grad()
    def _read_rest(self, rows: Tensor) -> Float[Tensor, "batch pos vocab"]:
        return self._rest.rows(rows) @ self.prefix.readout.weight

    @torch.no_grad()
    def _constants_of(self, rows: Tensor) -> Float[Tensor, "batch pos 2"]:
        """|R|^2 and e.R of the rest of the stream."""
        rest = self._rest.rows(rows)
        return torch.stack([(rest * rest).sum(-1), (rest * self.prefix.targets(rows).directions).sum(-1)], -1)

    def _earlier_layer(self, mixed: Tensor, weights: dict, parts: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        prefix = self.prefix
        resid = self._rest.rows(rows) + mixed @ weights["W_O"][0]
        for block in prefix.model.blocks[prefix.layer + 1 :]:
            resid = block(resid, prefix.positions)
        centred, inverse = prefix.readout.normalise(resid)
        x = centred * inverse
        targets = prefix.targets(rows)
        lse = LogSumExp.apply(x.flatten(0, 1), prefix.readout)
        linear = (x * targets.directions).sum(-1) + targets.offsets
        loss = lse.mean() - linear.mean()
        grads = torch.autograd.grad(loss, parts) if loss.requires_grad else []
        return loss.detach(), torch.cat([grad.reshape(-1) for grad in grads]) if grads else self.w_star

    def _last_layer(self, mixed: Tensor, weights: dict, parts: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient without ever forming the residual: all it enters by are products with W_O, k wide.

        With rc = R + z W_O: |rc|^2 = |R|^2 + 2 z.(R W_O^T) + z (W_O W_O^T) z, and e.rc = e.R + z.(e W_O^T).
        """
        want, z, w_o = mixed.requires_grad, mixed.detach().flatten(0, 1), weights["W_O"][0].detach()
        w_o = w_o - w_o.mean(1, keepdim=True)
        targets, constants = self.prefix.targets(rows), self._constants.rows(rows).flatten(0, 1)
        rest, directions = self._rest.rows(rows).flatten(0, 1), targets.directions.flatten(0, 1)
        onto, width = rest @ w_o.T, rest.shape[1]
        along, bent = directions @ w_o.T, z @ (w_o @ w_o.T)
        square = constants[:, 0] + (z * (2 * onto + bent)).sum(1)
        inverse = torch.rsqrt(square / width + self.prefix.readout.eps)
        linear = constants[:, 1] + (z * along).sum(1)
        read = self._vocabulary(z, w_o, inverse, rows, want)
        loss = (read.lse - inverse * linear - targets.offsets.flatten()).mean()
        if not want:
            return loss, self.w_star
        share = 1 / len(z)
        # da/dr = -a^3 rc / d: the scale of the LayerNorm feels every coordinate of the residual.
        drag = (inverse**3 * (read.scale_grad - linear) * (-share / width))[:, None]
        scale = (inverse * share)[:, None]
        to_mixed = scale * (read.mean_m - along) + drag * (onto + bent)
        pulled = drag * z
        to_output = (pulled.T @ rest).addmm_(pulled.T @ z, w_o).addmm_((scale * z).T, directions, alpha=-1)
        to_output.addmm_(read.gathered, self.prefix.readout.weight.T, alpha=share)
        others = [part for name, part in zip(self._names, parts, strict=True) if name != "W_O"]
        through = iter(torch.autograd.grad(mixed, others, to_mixed.view_as(mixed)))
        pieces = [to_output if name == "W_O" else next(through) for name in self._names]
        return loss, torch.cat([piece.reshape(-1) for piece in pieces])

    @torch.no_grad()
    def _vocabulary(self, z: Tensor, w_o: Tensor, inverse: Tensor, rows: Tensor, want: bool) -> _Vocabulary:
        """The pass over the vocabulary, a chunk of tokens at a time, for a head of the last layer."""
        readout, length = self.prefix.readout, self.prefix.length
        kernel = torch.cat([w_o @ readout.weight, readout.bias[None]])  # M and b, (k + 1, vocab)
        scaled = inverse[:, None] * z
        inputs = torch.cat([scaled, torch.ones_like(inverse)[:, None]], 1)
        lse, scale_grad = torch.empty_like(inverse), torch.empty_like(inverse)
        mean_m, gathered = torch.empty_like(z), torch.zeros_like(kernel[:-1])
        self._numerators.fill(rows)
        rest = torch.empty(0) if self._numerators.kept else self._rest.rows(rows)
        for index, row in enumerate(rows.tolist()):
            known = self._numerators.row(row)
            for part in chunks(length):
                span = slice(index * length + part.start, index * length + part.stop)
                buffer, spare = (each[: part.stop - part.start] for each in self._buffers())
                numerators = readout.read(rest[index, part], spare) if known is None else known[part]
                mass, total, lse[span], inner = weigh(inputs[span], kernel, numerators, inverse[span], buffer)
                if want:
                    mean_m[span] = (mass @ kernel[:-1].T) / total[:, None]
                    gathered.addmm_((scaled[span] / total[:, None]).T, mass)
                    scale_grad[span] = inner / total
        if want:
            scale_grad += (z * mean_m).sum(1)
        return _Vocabulary(lse, mean_m, gathered, scale_grad)

    def _buffers(self) -> list[Tensor]:
        """Two chunks of logits for each thread."""
        if not hasattr(self._own, "buffers"):
            self._own.buffers = buffers(self.prefix.readout, 2)
        return self._own.buffers


@dataclass(frozen=True)
class _Vocabulary:
    """Of each token: log-sum-exp, the mean of M under the softmax, and dlse/da; of all together `gathered`, the
    scaled z against the softmax."""

    lse: Float[Tensor, " n"]
    mean_m: Float[Tensor, "n k"]
    gathered: Float[Tensor, "k vocab"]
    scale_grad: Float[Tensor, " n"]
