"""One attention head as a potential, on an exact cached prefix: the speed path of the attention-only model.

For a head of the last layer nothing is d x vocab in a step but one small product: with z what the head has gathered,
logits = a (N* + z M - z* M*) + b, where N* (all of w* read by the vocabulary) is known for the sequence and
M = W_O W is d_head x vocab. Gradients go to z and W_O alone. A head of an earlier layer runs the later layers in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.attention_only.model import attend, project
from harness.llc.prefix import AttentionPrefix, RowTable, Targets
from harness.llc.readout import LogSumExp, buffers, chunks, exp_above
from harness.llc.slices import WeightSlice

PARTS = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")


class HeadPotential:
    """The loss as a function of one head's weights, `where` being its slice (with or without biases)."""

    def __init__(self, prefix: AttentionPrefix, where: WeightSlice, head: int) -> None:
        self.prefix, self.where, self.head = prefix, where, head
        self.num_rows = prefix.num_rows
        attention = prefix.model.blocks[prefix.layer].attn
        tensors = dict(prefix.model.named_parameters())
        self.w_star = where.gather(tensors)
        self._star = {name: getattr(attention, name)[head : head + 1].detach() for name in PARTS}
        self._names = [piece.name.rsplit(".", 1)[-1] for piece in where.pieces]
        width = prefix.model.config.d_head
        fits = prefix.before.kept is not False and prefix.num_rows * prefix.length * width * 4 < 1 << 28
        self._mixed = RowTable(self._mix_star, prefix.num_rows, 1 << 28 if fits else 0)
        self._m_star = self._star["W_O"][0] @ prefix.readout.weight if prefix.is_last else None
        self._buffers = buffers(prefix.readout, 2) if prefix.is_last else []

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

    def _one(self, w: Tensor, rows: Tensor, *, grad: bool) -> tuple[Tensor, Tensor]:
        parts = dict(zip(self._names, self.where.split(w.detach()), strict=True))
        for part in parts.values():
            part.requires_grad_(grad)
        weights = {**self._star, **parts}
        with torch.set_grad_enabled(grad):
            mixed = self._mix(self.prefix.before.rows(rows), weights)
            run = self._last_layer if self.prefix.is_last else self._earlier_layer
            return run(mixed, weights, list(parts.values()), rows)

    def _mix(self, before: Float[Tensor, "batch pos d"], weights: dict[str, Tensor]) -> Float[Tensor, "batch pos k"]:
        normed = self.prefix.model.blocks[self.prefix.layer].ln1(before).detach()
        located = normed + self.prefix.positions
        both = torch.cat([weights["W_Q"], weights["W_K"]])
        query_key = project(located, both, torch.cat([weights["b_Q"], weights["b_K"]]))
        value = project(normed, weights["W_V"], weights["b_V"])
        return attend(query_key[:, :1], query_key[:, 1:], value)[:, 0]

    @torch.no_grad()
    def _mix_star(self, rows: Tensor) -> Tensor:
        return self._mix(self.prefix.before.rows(rows), self._star)

    def _others(self, rows: Tensor) -> Float[Tensor, "batch pos d"]:
        return self.prefix.after.rows(rows) - self._mixed.rows(rows) @ self._star["W_O"][0]

    def _earlier_layer(self, mixed: Tensor, weights: dict, parts: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        prefix = self.prefix
        resid = self._others(rows) + mixed @ weights["W_O"][0]
        for block in prefix.model.blocks[prefix.layer + 1 :]:
            resid = block(resid, prefix.positions)
        centred, inverse = prefix.readout.normalise(resid)
        x = centred * inverse
        targets = prefix.targets(rows)
        lse = LogSumExp.apply(x.flatten(0, 1), targets.start_lse.flatten(), prefix.readout)
        linear = (x * targets.directions).sum(-1) + targets.offsets
        loss = lse.mean() - linear.mean()
        grads = torch.autograd.grad(loss, parts) if loss.requires_grad else []
        return loss.detach(), torch.cat([grad.reshape(-1) for grad in grads]) if grads else self.w_star

    def _last_layer(self, mixed: Tensor, weights: dict, parts: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        want, z, w_o = mixed.requires_grad, mixed.detach().flatten(0, 1), weights["W_O"][0].detach()
        targets = self.prefix.targets(rows)
        found = self._vocabulary(z, w_o, targets, rows, want)
        loss = (found.lse - found.linear).mean()
        if not want:
            return loss, self.w_star
        share = 1 / len(z)
        directions = targets.directions.flatten(0, 1)
        # da/dr = -a^3 rc / d: the scale of the LayerNorm feels every coordinate of the residual.
        scale_pull = found.scale_grad - (found.centred * directions).sum(1)
        drag = -(found.inverse**3 * scale_pull / found.centred.shape[1])[:, None] * found.centred
        to_resid = drag - found.inverse[:, None] * directions
        to_mixed = (found.inverse[:, None] * found.mean_m + to_resid @ w_o.T) * share
        to_output = (z.T @ to_resid + found.gathered @ self.prefix.readout.weight.T) * share
        others = [part for name, part in zip(self._names, parts, strict=True) if name != "W_O"]
        through = iter(torch.autograd.grad(mixed, others, to_mixed.view_as(mixed)))
        pieces = [to_output if name == "W_O" else next(through) for name in self._names]
        return loss, torch.cat([piece.reshape(-1) for piece in pieces])

    @torch.no_grad()
    def _vocabulary(self, z: Tensor, w_o: Tensor, targets: Targets, rows: Tensor, want: bool) -> _Vocabulary:
        """The pass over the vocabulary, a chunk of tokens at a time, for a head of the last layer."""
        prefix, length = self.prefix, self.prefix.length
        centred, inverse = prefix.readout.normalise(self._others(rows).flatten(0, 1) + z @ w_o)
        inverse, guess = inverse[:, 0], targets.start_lse.flatten()
        kernel = w_o @ prefix.readout.weight  # M, (k, vocab)
        bias = prefix.readout.bias
        back = torch.cat([kernel, bias[None]]).T.contiguous() if want else kernel
        prefix.numerators.fill(rows)
        forward = torch.cat([kernel, self._m_star, prefix.readout.augmented[-2:].float()])
        z_star = self._mixed.rows(rows).flatten(0, 1)
        scaled = inverse[:, None] * z
        ones = torch.ones_like(guess)[:, None]
        inputs = torch.cat([scaled, -inverse[:, None] * z_star, ones, -guess[:, None]], 1)
        lse, scale_grad = torch.empty_like(guess), torch.empty_like(guess)
        mean_m, gathered = torch.empty_like(z), torch.zeros_like(kernel)
        for index, row in enumerate(rows.tolist()):
            known = prefix.numerators.row(row)
            for part in chunks(length):
                span = slice(index * length + part.start, index * length + part.stop)
                out = self._buffers[0][: part.stop - part.start]
                if known is None:
                    logits = prefix.readout.logits(centred[span] * inverse[span, None], guess[span], out)
                else:
                    logits = torch.mul(known[part], inverse[span, None], out=out).addmm_(inputs[span], forward)
                mass, total, lse[span] = exp_above(logits, guess[span], self._buffers[1])
                if not want:
                    continue
                read = mass @ back
                gathered.addmm_((scaled[span] / total[:, None]).T, mass)
                mean_m[span] = read[:, :-1] / total[:, None]
                inner = logits.mul_(mass).sum(1) + (lse[span] - total.log()) * total - read[:, -1]
                scale_grad[span] = inner / total / inverse[span]
        linear = inverse * (centred * targets.directions.flatten(0, 1)).sum(1) + targets.offsets.flatten()
        return _Vocabulary(lse, linear, centred, inverse, mean_m, gathered, scale_grad)


@dataclass(frozen=True)
class _Vocabulary:
    """Of each token: log-sum-exp, the linear part, rc, a, the mean of M under the softmax, and dlse/da; of all
    together `gathered`, the scaled z against the softmax."""

    lse: Float[Tensor, " n"]
    linear: Float[Tensor, " n"]
    centred: Float[Tensor, "n d"]
    inverse: Float[Tensor, " n"]
    mean_m: Float[Tensor, "n k"]
    gathered: Float[Tensor, "k vocab"]
    scale_grad: Float[Tensor, " n"]
