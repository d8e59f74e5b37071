"""A subject: a model on this machine, opened for one run, with its identity, tokenizer, weights and applicability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from circuit_claims.errors import InputError
from circuit_claims.judging.claims import Claim
from circuit_claims.keeping.measure import Context
from circuit_claims.running.run import Run
from circuit_claims.running.selection import Choice

if TYPE_CHECKING:
    from circuit_claims.models.files.tensors import TensorSource
    from circuit_claims.models.resolve import LocalModel
    from circuit_claims.models.tokens import TokenTable

LONG_CONTEXT = 512
TRAIT_REASONS: Mapping[str, str] = {
    "multi_digit_numbers": "not applicable: numbers are split into digits",
    "split_numbers": "not applicable: numbers are whole tokens, which the claim this one is adapted from is about",
    "long_contexts": f"not applicable: the model reads fewer than the {LONG_CONTEXT} tokens of the paper's contexts",
    "training_revisions": "not applicable: no weights of earlier training steps are published",
}


@dataclass(frozen=True)
class Subject:
    """One model of a run. Measures take it first; what it reads is verified on the way."""

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
        """What a reader should know of the model: sizes, licence, digest, source, which tasks its tokens allow."""
        from circuit_claims.papers.successor_heads.dataset import succession

        row, tokens = self.model.row, succession(self.tokens)
        card: dict[str, Any] = {
            "title": row.title if row else self.name,
            "licence": row.licence if row else "not known: a local model",
            "digest": self.model.digest,
            "source": ", ".join(f"{key}: {value}" for key, value in sorted(self.model.source.items())),
            "note": row.note if row else "",
            "tokenizer": {task: sum(forms.values()) for task, forms in tokens.table().items()},
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

    def not_applicable(self, claims: Iterable[Claim]) -> str:
        """Why a claim that requires a trait cannot be asked of this model; empty when it can."""
        missing = [trait for claim in claims for trait in claim.requires if not self._has(trait)]
        return TRAIT_REASONS[missing[0]] if missing else ""

    def _has(self, trait: str) -> bool:
        row = self.model.row
        if trait == "training_revisions":
            return bool(row and row.revisions)
        if trait == "long_contexts":
            from circuit_claims.models.architectures.names import dimensions_of

            # Zero where the config does not limit it.
            return not 0 < dimensions_of(self.tensors.config).n_ctx < LONG_CONTEXT
        if trait == "split_numbers":
            return not self._has("multi_digit_numbers")
        if row is None:
            from circuit_claims.papers.successor_heads.dataset import succession

            return "numbers" in succession(self.tokens).task_names
        return bool(getattr(row.traits, trait))


def open_subject(choice: Choice, run: Run) -> Subject:
    """Resolve a choice to a model on this machine. Raises `ModelNotAvailable` with the command that would fetch it."""
    from circuit_claims.models.resolve import resolve

    find = partial(resolve, models_dir=run.models_dir, offline=run.offline, fetch=choice.fetch)
    return Subject(run.label(choice.subject), find(choice.subject), run.context, find)
