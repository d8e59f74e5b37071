"""A subject: a model on this machine, opened for one run, with its identity, tokenizer, weights and applicability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from circuit_claims.errors import InputError
from circuit_claims.keeping.measure import Context
from circuit_claims.running.run import Run
from circuit_claims.running.selection import Choice

if TYPE_CHECKING:
    from circuit_claims.models.files.tensors import TensorSource
    from circuit_claims.models.resolve import LocalModel
    from circuit_claims.models.tokens import TokenTable


@dataclass(frozen=True)
class Subject:
    """One model of a run. Measures take it first; what it reads is verified on the way.

    >>> def has_two_layers(subject: Subject) -> bool:  # `has` of a paper's `Trait`
    ...     return subject.card()["n_layers"] > 1
    """

    name: str
    model: LocalModel
    context: Context
    resolve: Callable[[str], LocalModel] | None = None

    def at_step(self, step: int) -> Subject:
        """The same model at an earlier training step. Raises `ModelNotAvailable` where it cannot be had."""
        if self.resolve is None:
            raise InputError(f"{self.name}: expected a model of the registry with saved training steps, found none")
        name = f"{self.name}@step{step}"
        return replace(self, name=name, model=self.resolve(name))

    def identity(self) -> dict[str, Any]:
        """The digest of weights and tokenizer: what a stored measurement is kept under. The name plays no part."""
        return {"model": self.model.digest, "tokenizer": self.tokens.digest}

    @cached_property
    def tokens(self) -> TokenTable:
        """The model's tokenizer."""
        return self.model.tokenizer()

    @cached_property
    def tensors(self) -> TensorSource:
        """The model's weights, read one tensor at a time."""
        return self.model.tensors()

    def check_untouched(self) -> None:
        """Raise `DamagedWeights` if the files on disk are no longer those that were opened."""
        from circuit_claims.models.files.manifest import check_quickly

        check_quickly(self.model.folder, self.model.manifest)

    def card(self) -> dict[str, Any]:
        """What a reader should know of the model: sizes, licence, digest, source. Papers may add lines of their own."""
        row = self.model.row
        card: dict[str, Any] = {
            "title": row.title if row else self.name,
            "licence": row.licence if row else "not known: a local model",
            "digest": self.model.digest,
            "source": ", ".join(f"{key}: {value}" for key, value in sorted(self.model.source.items())),
            "note": row.note if row else "",
        }
        return {**card, **self._sizes()}

    def _sizes(self) -> dict[str, Any]:
        if self.model.row is not None and self.model.row.format == "tokenizer":
            return {"architecture": "a tokenizer without weights"}
        from circuit_claims.models.architectures.names import dimensions_of

        dims = dimensions_of(self.tensors.config)
        return {
            "architecture": str(self.tensors.config["model_type"]),
            "parameters": self.model.row.parameters if self.model.row else None,
            "n_layers": dims.n_layers,
            "n_heads": dims.n_heads,
            "d_model": dims.d_model,
            "vocab": dims.d_vocab,
        }


def has_training_revisions(subject: Any) -> bool:
    """The trait `training_revisions`: whether weights of earlier training steps are published."""
    row = subject.model.row
    return bool(row and row.revisions)


def open_subject(choice: Choice, run: Run) -> Subject:
    """Resolve a choice to a model on this machine. Raises `ModelNotAvailable` with the command that would fetch it."""
    from circuit_claims.models.resolve import resolve

    where = {"models_dir": run.models_dir, "registry": run.papers.models}
    find = partial(resolve, **where, offline=run.offline, fetch=choice.fetch)
    return Subject(run.label(choice.subject), find(choice.subject), run.context, find)
