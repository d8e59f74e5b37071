"""The table behind SH-21 and SH-22: which cases a head wins and whose loss it reduces on real text, and how it does it.

A *case* is a prefix of a context. The head's *winning cases* are those in which its direct-effect mean ablation lowers
the correct token's logit most of all heads; its *loss-reducing cases*, for each effect and ablation, those in which
ablating it raises the loss (Gould et al. 2024, on natural text). Behaviours are told by `natural_text.behaviours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Context, Measurement, measure
from circuit_claims.heads.effects.settings import ABLATIONS, EFFECTS, Ablation, Effect
from circuit_claims.papers.successor_heads.natural_text.behaviours import OTHER, VARIANTS, Line, label_cases
from circuit_claims.papers.successor_heads.natural_text.cases import find_examples, possible
from circuit_claims.texts import Text
from circuit_claims.texts.windows import Contexts, draw_contexts

if TYPE_CHECKING:
    from jaxtyping import Bool

    from circuit_claims.heads.effects.cells import Plan
    from circuit_claims.heads.effects.results import DirectEffects, HeadEffects

EFFECT_ROWS: tuple[tuple[Effect, Ablation], ...] = tuple(product(EFFECTS, ABLATIONS))
REPEATS = 2
# Contexts that means and donors are taken from, an eighth of all at the least: each costs a forward pass.
LEAST_REFERENCE = 6
# Passes kept in memory from one question to the next: of 512 tokens through half a billion parameters about eight.
KEPT_BYTES = 1_200_000_000
ATTENDED = 6
# So many that the head leads all of them by chance in one case of twenty.
OTHERS = 19
PROMOTED = 5
NEIGHBOURS = 2
# Loss-reducing cases of a random head that are labelled, a context: what it promotes is looked for in these alone.
SAMPLED = 40
UNASKED = -1


@dataclass(frozen=True)
class Amounts:
    """How much is read: contexts of `length` tokens for logits, the first `loss_contexts` of them for losses.

    `others` is how many matched random heads stand beside the head.
    """

    contexts: int
    loss_contexts: int
    others: int = OTHERS
    length: int = 512
    seed: int = 0

    def parameters(self) -> dict[str, int]:
        """The amounts as parameters of a measure."""
        return dict(vars(self))


@dataclass(frozen=True)
class Reading:
    """A subject reading a text: what the measures on natural text take first."""

    subject: Any
    text: Text

    @property
    def context(self) -> Context:
        """The run's store, device and profile."""
        return self.subject.context

    def identity(self) -> dict[str, Any]:
        """The subject's digests and the text's."""
        return {**self.subject.identity(), "text": self.text.digest}

    def draw(self, amounts: Amounts) -> Contexts:
        """The contexts, drawn with the seed."""
        return draw_contexts(
            self.text, self.subject.tokens, count=amounts.contexts, length=amounts.length, seed=amounts.seed
        )

    @cached_property
    def _strings(self) -> dict[int, str]:
        return {}

    def strings(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """The strings of token ids."""
        known, decode = self._strings, self.subject.tokens.decode
        return tuple(known[token] if token in known else known.setdefault(token, decode(token)) for token in tokens)

    def plan(self, contexts: np.ndarray, seed: int) -> Plan:
        """Ablations of these contexts, with means and donors from the first of them, a context's own left out."""
        import torch

        from circuit_claims.heads.effects.cells import Plan
        from circuit_claims.heads.effects.forward import open_model
        from circuit_claims.heads.effects.settings import Ablations

        device = self.context.device
        reference = max(LEAST_REFERENCE, len(contexts) // 8)
        return Plan(
            load=lambda: open_model(self.subject.model, device),
            identity=self.subject.identity(),
            contexts=contexts,
            reference=contexts[:reference],
            ablations=Ablations(repeats=max(1, min(REPEATS, reference - 1, len(contexts) - 1)), seed=seed),
            threads=torch.get_num_threads(),
            device=device,
        )


@measure
def head_cases(reading: Reading, *, head: list[int], amounts: dict[str, int]) -> Measurement:
    """Everything SH-21 and SH-22 are read off, for one head and `others` matched random heads; see `_arrays`."""
    from circuit_claims.heads.effects.cells import Kept, measure_contexts

    asked = Amounts(**amounts)
    drawn = reading.draw(asked)
    plan, run = replace(reading.plan(drawn.tokens, asked.seed), kept=Kept(KEPT_BYTES)), reading.context
    effects = measure_contexts(plan, run.store, tell(reading, "ablating every head"), anew=run.remeasure)
    sizes = np.mean([np.abs(found.mean).mean(1) for found in effects], axis=0)
    row = effects[0].row((head[0], head[1]))
    rows = [row, *matched_rows(sizes, row, asked.others, np.random.default_rng(asked.seed))]
    heads = effects[0].heads[rows]
    losses = _losses(plan, reading, heads, asked)
    views = views_of(plan, heads, _labelled(effects, rows, losses[1], asked.seed))
    arrays = _arrays(reading, drawn, effects, rows, views, losses)
    facts = {
        "text": drawn.text,
        "contexts": len(drawn),
        "loss_contexts": len(losses[0]),
        "documents": list(drawn.documents),
        "places": list(drawn.places),
        "contexts_digest": drawn.digest,
        "largest gap": float(max(found.gap for found in effects)),
        "kinds": arrays.pop("kinds"),
    }
    n = int(arrays["won"][0].size)
    return Measurement("cases of one head", None, n=n, seed=asked.seed, arrays=arrays, facts=facts)


def matched_rows(sizes: np.ndarray, row: int, count: int, generator: np.random.Generator) -> list[int]:
    """`count` random heads whose mean effect is about as large: drawn from the nearest in rank, twice as many."""
    order = np.argsort(-sizes, kind="stable")
    place = int(np.flatnonzero(order == row)[0])
    nearest = sorted((other for other in range(len(order)) if other != place), key=lambda other: abs(other - place))
    pool = [int(order[other]) for other in nearest[: NEIGHBOURS * count]]
    return sorted(pool[index] for index in generator.permutation(len(pool))[:count])


def _labelled(
    effects: Sequence[DirectEffects], rows: list[int], other: list[HeadEffects], seed: int
) -> Bool[np.ndarray, "head context case"]:
    """Cases of the matched heads in which it is asked what they promote: those they win, and of the first of them
    some of those whose loss its direct effect reduces."""
    winners = np.stack([found.winners("mean") for found in effects])
    asked = np.stack([winners == row for row in rows[1:]]) if rows[1:] else np.zeros((0, *winners.shape), dtype=bool)
    generator = np.random.default_rng(seed)
    for place, found in enumerate(other):
        for effect in EFFECT_ROWS[:2]:
            cases = np.flatnonzero(found.changes[effect] > 0)
            asked[0, place, generator.permutation(cases)[:SAMPLED]] = True
    return asked


@dataclass(frozen=True)
class Views:
    """What heads attend to, (head, context, case, `ATTENDED`) positions, the most first; and for the first head the
    shares of its attention and the tokens it promotes most. `raised` (head, context, case) is the token that each of
    the other heads promotes most, -1 where that was not asked."""

    attended: np.ndarray
    attention: np.ndarray
    promoted: np.ndarray
    promoted_logit: np.ndarray
    raised: np.ndarray


def views_of(plan: Plan, heads: np.ndarray, asked: Bool[np.ndarray, "head context case"]) -> Views:
    """What each of `heads` attends to in every case, and what it promotes: the first always, others where `asked`."""
    import torch

    from circuit_claims.heads.effects.views import most_attended, most_promoted, promoted_in

    opened = plan.opened()
    model, readout = opened.model, opened.readout((int(heads[0][0]), int(heads[0][1])))

    def look(row: np.ndarray, where: Bool[np.ndarray, "head case"]) -> tuple[np.ndarray, ...]:
        (run,) = plan.runs(model, row[None])
        seen = [most_attended(model.patterns(run, layer, [head])[0], ATTENDED) for layer, head in heads.tolist()]
        promoted, logits = most_promoted(readout, run, PROMOTED)
        positions = np.stack([places.cpu().numpy() for places, _ in seen])
        raised = np.full(where.shape, -1, dtype=np.int32)
        for other, cases in enumerate(where):
            if cases.any():
                at = torch.from_numpy(np.flatnonzero(cases)).to(model.device)
                found = promoted_in(model, run, (int(heads[1 + other][0]), int(heads[1 + other][1])), at)
                raised[other, cases] = found.cpu().numpy()
        return positions, seen[0][1].cpu().numpy(), promoted.cpu().numpy(), logits.cpu().numpy(), raised

    pairs = list(zip(plan.contexts, asked.swapaxes(0, 1), strict=True))
    looked = plan.side_by_side(lambda pair: look(*pair), pairs)
    attended, attention, promoted, logits, raised = zip(*looked, strict=True)
    return Views(
        attended=np.stack(attended, axis=1).astype(np.int16),
        attention=np.stack(attention).astype(np.float32),
        promoted=np.stack(promoted).astype(np.int32),
        promoted_logit=np.stack(logits).astype(np.float32),
        raised=np.stack(raised, axis=1),
    )


def _losses(
    plan: Plan, reading: Reading, heads: np.ndarray, amounts: Amounts
) -> tuple[list[HeadEffects], list[HeadEffects]]:
    """Loss changes of the head under every effect, and of the first matched head under direct ones."""
    from circuit_claims.heads.effects.cells import measure_heads
    from circuit_claims.heads.effects.settings import HeadSettings

    part = replace(plan, contexts=plan.contexts[: amounts.loss_contexts])
    own, *others = [(int(layer), int(head)) for layer, head in heads]
    whole = HeadSettings(attended=0, promoted=0)  # both are known from `views_of`, in more contexts
    asked = {own: whole, **{other: replace(whole, effects=("direct",)) for other in others[:1]}}
    run = reading.context
    found = measure_heads(part, asked, run.store, tell(reading, "ablating the head"), anew=run.remeasure)
    return found[own], found[others[0]] if others else []


def tell(reading: Reading, what: str) -> Any:
    """A report of progress for the ablation engine: a bar after two seconds, with cells done and time left."""
    from circuit_claims.models.progress import shown

    state: dict[str, Any] = {}

    def report(progress: Any) -> None:
        if "bar" not in state:
            state["manager"] = shown(None)
            state["bar"] = state["manager"].__enter__()
        left = f", about {progress.seconds_left:.0f} s left" if progress.done < progress.total else ""
        state["bar"](f"{what} of {reading.subject.name}{left}", progress.done, progress.total)
        if progress.done >= progress.total:
            state.pop("manager").__exit__(None, None, None)
            state.clear()

    return report


def _arrays(
    reading: Reading,
    drawn: Contexts,
    effects: Sequence[DirectEffects],
    rows: list[int],
    views: Views,
    losses: tuple[list[HeadEffects], list[HeadEffects]],
) -> dict[str, Any]:
    """Arrays over (head, context, case); the first head is the one asked about, the others are matched random ones."""
    own, other = losses
    lines = [Line(reading.strings(row.tolist())) for row in drawn.tokens]
    kinds: dict[str, int] = {}
    examples = [find_examples(line.tokens, kinds) for line in lines]
    winners = np.stack([found.winners("mean") for found in effects])
    n_heads = len(effects[0].heads)
    generator = np.random.default_rng(drawn.seed)
    return {
        "heads": effects[0].heads[rows],
        "all_heads": effects[0].heads,
        "wins": np.bincount(winners.ravel(), minlength=n_heads),
        "wins_frozen": np.bincount(np.concatenate([found.frozen_winner for found in effects]), minlength=n_heads),
        "size": np.mean([np.abs(found.mean).mean(1) for found in effects], axis=0),
        "cluster": drawn.clusters,
        "tokens": drawn.tokens,
        "won": np.stack([winners == row for row in rows]),
        "drop": np.stack([[found.mean[row] for found in effects] for row in rows]).astype(np.float32),
        **vars(views),
        "loss": np.stack([found.loss for found in own]).astype(np.float32),
        "change": np.stack([[found.changes[name] for found in own] for name in EFFECT_ROWS]).astype(np.float32),
        "other_change": np.stack([[found.changes[name] for found in other] for name in EFFECT_ROWS[:2]]).astype(
            np.float32
        ),
        "kind": np.stack([found.kind for found in examples]).astype(np.int8),
        "succession": np.stack([found.succession for found in examples]),
        "follows": np.stack([found.follows for found in examples]),
        "possible": np.stack([possible(line) for line in lines], axis=1),
        "kinds": list(kinds),
        **_labels(lines, views, reading, generator),
    }


def _labels(
    lines: Sequence[Line], views: Views, reading: Reading, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Behaviours of cases, as indices into `BEHAVIOURS`: `label` (variant, head, context, case) by the token that the
    head promotes most, `UNASKED` where that is not known; of the first head also by
    the correct token, and by tokens drawn from the prefix in place of the attended ones."""
    attended, (n_contexts, n_cases) = views.attended, views.attended.shape[1:3]
    raised = np.concatenate([views.promoted[None, ..., 0], views.raised])
    label = np.full((len(VARIANTS), *raised.shape), UNASKED, dtype=np.int8)
    drawn = np.full((n_contexts, n_cases), OTHER, dtype=np.int8)
    correct = np.full((len(VARIANTS), n_contexts, n_cases), OTHER, dtype=np.int8)
    five = max(VARIANTS.values())
    for place, line in enumerate(lines):
        # Positions 1 to t, so that the control has as many tokens to find a relation with as the head has.
        anywhere = 1 + generator.integers(0, np.maximum(np.arange(n_cases), 1)[:, None], (n_cases, ATTENDED))
        anywhere[0] = -1
        for head in range(len(raised)):
            (cases,) = np.nonzero(raised[head, place] >= 0)
            targets = dict(zip(cases.tolist(), reading.strings(raised[head, place, cases].tolist()), strict=True))
            for variant, top in enumerate(VARIANTS.values()):
                label[variant, head, place, cases] = label_cases(line, attended[head, place], cases, top, targets)
        drawn[place] = label_cases(line, anywhere, range(n_cases), five, reading.strings(raised[0, place].tolist()))
        for variant, top in enumerate(VARIANTS.values()):
            correct[variant, place] = label_cases(line, attended[0, place], range(n_cases), top)
    return {"label": label, "label_drawn": drawn, "label_correct": correct}
