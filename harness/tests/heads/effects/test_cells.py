"""Many contexts: the same arrays whether interrupted, resumed, on two threads or one, in batches of 1 or 8."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from circuit_claims.heads.effects.cells import Kept, Plan, measure_contexts, measure_heads
from circuit_claims.heads.effects.forward import open_model
from circuit_claims.heads.effects.settings import Ablations, HeadSettings
from circuit_claims.keeping.store import Store, key_of

HEADS = [(0, 1), (0, 2)]
CONTEXTS = 9


@pytest.fixture(scope="module")
def contexts():
    return np.random.default_rng(3).integers(0, 400, (CONTEXTS, 16))


@pytest.fixture(scope="module")
def plan_of(bench_of, contexts):
    """A plan on the small llama; `opened` counts how often its model was loaded."""
    bench, opened = bench_of("llama"), []

    def plan(**changes) -> Plan:
        def load():
            opened.append(1)
            return bench.model

        usual = {"contexts": contexts, "reference": contexts[:5], "ablations": Ablations(repeats=2), "threads": 1}
        return Plan(load, {"model": bench.local.digest}, **{**usual, **changes})

    plan.opened = opened
    return plan


def keys_of(plan) -> set[str]:
    return {key_of(parts) for parts in plan.cells(["every head"], {}).values()}


def same(one, other) -> bool:
    left, right = one.arrays(), other.arrays()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


class Interrupted(Store):
    """Ctrl-C comes when so many cells have been saved."""

    def __init__(self, root, after):
        super().__init__(root)
        self.left = after

    def save(self, key, measurement, **words):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().save(key, measurement, **words)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The store of `undisturbed`: to be read, never to be written to."""
    return Store(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def undisturbed(plan_of, kept):
    return measure_contexts(plan_of(), kept), measure_heads(plan_of(), HEADS, kept)


@pytest.mark.parametrize("changes", [{"threads": 2}, {"threads": 3}, {"batch": 8}, {"batch": 2, "threads": 2}], ids=str)
def test_threads_and_batches_change_no_bit(changes, plan_of, undisturbed, tmp_path):
    store = Store(tmp_path / "other")
    direct, heads = measure_contexts(plan_of(**changes), store), measure_heads(plan_of(**changes), HEADS, store)
    assert all(map(same, direct, undisturbed[0]))
    assert all(same(*pair) for head in HEADS for pair in zip(heads[head], undisturbed[1][head], strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupted_and_resumed_gives_the_same(threads, plan_of, undisturbed, tmp_path):
    root = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        measure_contexts(plan_of(threads=threads), Interrupted(root, after=4))
    assert len(list(root.glob("??/*/measurement.json"))) == 4
    seen = []
    resumed = measure_contexts(plan_of(threads=threads), Store(root), seen.append)
    assert all(map(same, resumed, undisturbed[0]))
    assert [one.done for one in seen if one.step == "ablation"] == list(range(1, CONTEXTS + 1))


def test_heads_interrupted_in_the_middle_of_a_context(plan_of, undisturbed, tmp_path):
    root = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        measure_heads(plan_of(), HEADS, Interrupted(root, after=5))
    resumed = measure_heads(plan_of(), HEADS, Store(root))
    assert all(same(*pair) for head in HEADS for pair in zip(resumed[head], undisturbed[1][head], strict=True))


def test_what_is_stored_is_not_measured_again(plan_of, undisturbed, kept):
    before = len(plan_of.opened)
    again = measure_contexts(plan_of(threads=2, batch=4), kept)
    fewer = measure_contexts(plan_of(contexts=plan_of().contexts[2:5]), kept)
    one = measure_heads(plan_of(contexts=plan_of().contexts[2:5]), HEADS[1:], kept)
    assert len(plan_of.opened) == before
    assert all(map(same, undisturbed[0], again))
    assert all(map(same, undisturbed[0][2:5], fewer))
    assert all(map(same, undisturbed[1][HEADS[1]][2:5], one[HEADS[1]]))


def test_a_damaged_cell_is_made_again(plan_of, undisturbed, kept, tmp_path):
    shutil.copytree(kept.root, tmp_path / "copy")
    bad, root = [], tmp_path / "copy"
    for victim in sorted(root.glob("??/*/arrays.safetensors")):
        victim.write_bytes(victim.read_bytes()[:-3])
    found = measure_contexts(plan_of(), Store(root, lambda path, reason: bad.append(reason)))
    assert all(map(same, undisturbed[0], found))
    assert len(bad) == CONTEXTS


@pytest.mark.parametrize(
    "changes",
    [
        {"ablations": Ablations(repeats=2, seed=1)},
        {"ablations": Ablations(repeats=2, means="by position")},
        {"ablations": Ablations(repeats=2, in_sample=True)},
        {"ablations": Ablations(repeats=2, final_norm="frozen")},
    ],
    ids=lambda changes: str(changes["ablations"]),
)
def test_other_choices_give_other_cells(changes, plan_of, contexts, undisturbed, tmp_path):
    found = measure_contexts(plan_of(**changes, contexts=contexts[:2]), Store(tmp_path))
    assert not any(map(same, found, undisturbed[0]))
    assert not keys_of(plan_of(**changes)) & keys_of(plan_of())


def test_another_reference_model_or_question_gives_other_keys(plan_of):
    plan = plan_of()
    keys = {
        "own": plan.cells(["every head"], {}),
        "reference": plan_of(reference=plan.contexts[:6]).cells(["every head"], {}),
        "device": plan_of(device="cuda").cells(["every head"], {}),
        "question": plan.cells([(0, 1)], HeadSettings().parameters()),
        "other question": plan.cells([(0, 1)], HeadSettings(promoted=3).parameters()),
        "model": Plan(plan.load, {"model": "another"}, plan.contexts, plan.reference, plan.ablations).cells(
            ["every head"], {}
        ),
    }
    assert len({key_of(next(iter(cells.values()))) for cells in keys.values()}) == len(keys)


@pytest.mark.parametrize(("room", "passes"), [(0, 5 + 2 * CONTEXTS), (10**9, CONTEXTS), (20_000, None)])
def test_passes_that_are_kept_change_no_bit(room, passes, plan_of, undisturbed, tmp_path, monkeypatch):
    """Each context runs once with room for all; with room for some, these are the ones that are not run again."""
    plan, runs = plan_of(kept=Kept(room)), []
    run = type(plan.load()).run
    monkeypatch.setattr(type(plan.load()), "run", lambda model, rows: runs.append(len(rows)) or run(model, rows))
    direct, heads = measure_contexts(plan, Store(tmp_path)), measure_heads(plan, HEADS, Store(tmp_path))
    assert all(map(same, direct, undisturbed[0]))
    assert all(same(*pair) for head in HEADS for pair in zip(heads[head], undisturbed[1][head], strict=True))
    assert sum(runs) == passes if passes else CONTEXTS < sum(runs) < 5 + 2 * CONTEXTS


def test_contexts_whose_pass_is_yet_to_run_come_first(plan_of, tmp_path):
    """The threads end at about the same time if what is short is left to the end."""
    plan, saved = plan_of(kept=Kept(10**9)), []

    class Watched(Store):
        def save(self, key, measurement, **words):
            saved.append(key)
            super().save(key, measurement, **words)

    measure_contexts(plan, Watched(tmp_path))
    keys = [key_of(parts) for parts in plan.cells(["every head"], {}).values()]
    assert [keys.index(key) for key in saved] == [5, 6, 7, 8, 0, 1, 2, 3, 4]


def test_what_is_asked_may_differ_by_head(plan_of, undisturbed, tmp_path):
    less = HeadSettings(effects=("direct",), attended=0, promoted=0)
    found = measure_heads(plan_of(), {HEADS[0]: HeadSettings(), HEADS[1]: less}, Store(tmp_path))
    assert all(map(same, found[HEADS[0]], undisturbed[1][HEADS[0]]))
    for one, whole in zip(found[HEADS[1]], undisturbed[1][HEADS[1]], strict=True):
        assert set(one.changes) == {("direct", "mean"), ("direct", "resample")}
        assert all(np.array_equal(one.changes[name], whole.changes[name]) for name in one.changes)
        assert one.attended.shape == one.promoted_logit.shape == (15, 0)


def test_progress_counts_down(plan_of, tmp_path):
    seen = []
    measure_contexts(plan_of(), Store(tmp_path), seen.append)
    assert [(one.step, one.done, one.total) for one in seen] == [
        *(("reference", done, 5) for done in range(1, 6)),
        *(("ablation", done, CONTEXTS) for done in range(1, CONTEXTS + 1)),
    ]
    assert all(one.seconds_left > 0 for one in seen if one.done < one.total)
    assert seen[-1].seconds_left == 0


def test_arrays_have_the_shapes_that_are_promised(undisturbed):
    direct, heads = undisturbed
    assert direct[0].mean.shape == direct[0].resample.shape == (8, 15)
    assert direct[0].mean.dtype == np.float32
    found = heads[0, 1][0]
    assert found.attended.shape == found.attention.shape == (15, 5)
    assert found.promoted.shape == found.promoted_logit.shape == (15, 10)
    assert set(found.changes) == {(e, a) for e in ("direct", "indirect", "total") for a in ("mean", "resample")}
    assert all(change.shape == found.loss.shape == (15,) for change in found.changes.values())
    assert found.reduces_loss("total").dtype == bool


@pytest.mark.parametrize(
    "wrong", [np.zeros(4, int), np.zeros((0, 4), int), np.zeros((2, 4))], ids=["one row", "none", "not ids"]
)
def test_contexts_that_are_none_are_refused(wrong, plan_of):
    with pytest.raises(ValueError, match="expected rows of token ids"):
        plan_of(contexts=wrong)


def test_a_head_the_model_does_not_have_is_refused(plan_of, tmp_path):
    with pytest.raises(KeyError, match="expected a layer below 2"):
        measure_heads(plan_of(), [(5, 0)], Store(tmp_path))


def test_a_real_folder_opens_and_measures(bench_of, contexts, tmp_path):
    local = bench_of("gemma3_text").local
    plan = Plan(lambda: open_model(local), {"model": local.digest}, contexts[:2], contexts[4:])
    assert max(found.gap for found in measure_contexts(plan, Store(tmp_path))) < 1e-5
