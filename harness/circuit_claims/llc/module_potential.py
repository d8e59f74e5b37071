"""Any torch module, any slice of its weights, any loss as a potential: the plain path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuit_claims.llc.losses import Loss
from circuit_claims.llc.slices import WeightSlice


class ModulePotential:
    """The mean of `loss(forward, batch)` over a batch, as a function of the sampled numbers alone.

    `data` is a tensor, or a tuple of tensors of one length, whose rows make batches; `loss` returns one number a row.
    The model's own tensors are never written: each call substitutes fresh ones. `micro_batch` rows at a time bound the
    memory without changing the statistical batch. The caller keeps the model in evaluation mode (see `held_still`).
    """

    def __init__(
        self,
        model: nn.Module,
        data: Tensor | tuple[Tensor, ...],
        where: WeightSlice,
        loss: Loss,
        micro_batch: int | None = None,
    ) -> None:
        self.model, self.data, self.where, self.loss, self.micro_batch = model, data, where, loss, micro_batch
        self.tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
        self.w_star = where.gather(self.tensors)
        self.num_rows = len(data) if isinstance(data, Tensor) else len(data[0])
        self._start_losses = torch.full((self.num_rows,), torch.nan, dtype=torch.float64)

    def start(self) -> Float[Tensor, " d"]:
        """A copy of the model's own numbers."""
        return self.w_star.clone()

    def _batch(self, rows: Tensor) -> Any:
        pick = rows.to(self.w_star.device)
        return self.data[pick] if isinstance(self.data, Tensor) else tuple(part[pick] for part in self.data)

    def _losses(self, w: Tensor, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        fresh = self.where.scatter(w, self.tensors)
        frozen = {name: fresh.get(name, tensor) for name, tensor in self.tensors.items()}

        def forward(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(self.model, frozen, args, kwargs)

        losses = self.loss(forward, self._batch(rows))
        if losses.shape != rows.shape:
            raise ValueError(
                f"loss of refined_llc: expected one number a row, shape ({len(rows)},), found {tuple(losses.shape)}. "
                "Return the loss of each row of the batch; the mean is taken for you"
            )
        return losses

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        return iter(rows.split(self.micro_batch or len(rows)))

    def value_and_grad(self, w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """One chain after another, a micro-batch at a time."""
        values, grads = [], []
        for each, batch in zip(w, rows, strict=True):
            point, value = each.detach().requires_grad_(), torch.zeros((), device=w.device)
            grad = torch.zeros_like(each)
            for part in self._parts(batch):
                with torch.enable_grad():
                    share = self._losses(point, part).sum() / len(batch)
                    grad += torch.autograd.grad(share, point)[0]
                value = value + share.detach()
            values.append(value)
            grads.append(grad)
        return torch.stack(values), torch.stack(grads)

    @torch.no_grad()
    def value(self, w: Tensor, rows: Tensor) -> Tensor:
        """The loss alone."""
        means = [
            torch.cat([self._losses(each, part) for part in self._parts(batch)]).mean()
            for each, batch in zip(w, rows, strict=True)
        ]
        return torch.stack(means)

    @torch.no_grad()
    def value_at_start(self, chains: int, rows: Tensor) -> Tensor:
        """The loss of w* on each batch, from a table filled in fixed blocks of rows."""
        rows = rows.cpu()
        size = self.micro_batch or rows.shape[1]
        for block in (rows // size).unique().tolist():
            part = torch.arange(block * size, min((block + 1) * size, self.num_rows))
            if self._start_losses[part].isnan().any():
                self._start_losses[part] = self._losses(self.w_star, part).double().cpu()
        return self._start_losses[rows].mean(1)


@contextmanager
def held_still(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode (no dropout), every module's own mode restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
