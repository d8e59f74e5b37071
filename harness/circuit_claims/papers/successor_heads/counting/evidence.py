"""Evidence beside the claims on counting, as plain data that the report draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circuit_claims.api import Bars, Curve, Curves, Evidence, GridMap, Measurement, Table, TextBlock, percentile_band
from circuit_claims.papers.successor_heads.counting.findings import USUAL_TASKS, Counting
from circuit_claims.papers.successor_heads.steering.quantities import SCALE_OF, USUAL, success_rate, tables_of, tasks_of

SHOWN_POSITIONS = 60
SHOWN_NEURONS = 3


def steering_map(heads: Counting, task: str) -> Evidence:
    """Where each edit lands: edited order against the token that won, the successor outlined; winners as a table."""
    table = heads.tables()
    if task not in tasks_of(table):
        among = task == "digits" and "numbers" in tasks_of(table)
        why = "Digits are among the numbers here." if among else f"This tokenizer has no {task} as single tokens."
        return _absent(f"Steering table of {task}", why)
    (one,) = tables_of(table, task)
    scale, items, expected = SCALE_OF.get(task, USUAL), one.items, one.expected
    winner = one.winner[one.at(scale)]
    wanted = sorted(set(expected[one.cells].tolist()), key=lambda place: items.index[place])
    landed = sorted({*winner[one.cells].tolist()} - {-1} | set(wanted))
    shares = [[float(np.mean(winner[expected == row] == column)) for column in landed] for row in wanted]
    edited = [float(one.rates(edited_only=edited)[one.at(scale)]) for edited in (False, True)]
    return GridMap(
        title=f"Steering table of {task}, scale {scale:g}, read by {heads.head.name}",
        caption=f"{int(one.cells.sum())} cells, {edited[0]:.0%} succeed ({edited[1]:.0%} of those that change "
        "anything). Row: the successor of the edited order; column: the token the head puts first; a cell is the share "
        "of a row's edits that land there.",
        rows=[items.texts[place] for place in wanted],
        columns=[items.texts[place] for place in landed],
        values=shares,
        vmin=0.0,
        vmax=1.0,
        marks=[[row, landed.index(place)] for row, place in enumerate(wanted)],
        mark_label="where an edit should land",
        ylabel="expected",
        xlabel="top token",
        label="share of edits",
        folded="The token that won, by token edited and residue wanted",
        text_rows=[items.texts[place] for place in one.rows],
        text_columns=[str(residue) for residue in range(expected.shape[1])],
        texts=[
            [_cell(items.texts, winner[row, residue], expected[row, residue]) for residue in range(expected.shape[1])]
            for row in range(len(one.rows))
        ],
    )


def _cell(texts: Sequence[str], winner: int, expected: int) -> str:
    if expected < 0:
        return "-"
    found = "a tie" if winner < 0 else texts[winner]
    return f"{found} ✓" if winner == expected else found


def _absent(title: str, text: str) -> Evidence:
    return TextBlock(title=title, text=text)


def scale_sweep(heads: Counting) -> Evidence:
    """Share of edited cells that succeed, by scale, for every task."""
    table = heads.tables()
    ones = [tables_of(table, task)[0] for task in tasks_of(table)]
    return Curves(
        title="Success by scale of the edit",
        caption="Share of cells with another residue than the token's own. The paper's scale is 1, and 2 for "
        f"months. Judged: the mean over {', '.join(task for task in USUAL_TASKS if task in tasks_of(table))}; and "
        "months.",
        x=list(ones[0].scales),
        series=[
            Curve(name=one.items.task, y=one.rates(edited_only=True).tolist(), low=None, high=None) for one in ones
        ],
        xlabel="scale of the edit",
        ylabel="share of edited cells",
    )


def success_by_length(heads: Counting) -> Evidence:
    """How the success rates depend on the length given to the features, which the paper does not state."""
    draws = heads.subject.context.profile.bootstrap_draws
    made = {"mean contrast between residues (judged)": heads.tables(), "length 1": heads.at_length("unit")}
    tasks = tasks_of(heads.tables())
    rows = [
        [name, *(f"{success_rate(table, task, draws).value:.0%}" for task in tasks)] for name, table in made.items()
    ]
    rows += [
        [f"control: {name}", *(f"{success_rate(table, task, draws).value:.0%}" for task in tasks)]
        for name, table in (
            ("random features", heads.tables(vectors="random")),
            ("features of other residues", heads.tables(vectors="shuffled")),
        )
    ]
    return Table(
        title="Success rates of all tasks, by what is added",
        caption="All cells of each table, at the paper's scale: 2 for months, 1 for the others.",
        columns=["length of f", *tasks],
        rows=rows,
    )


def in_context_tables(heads: Counting) -> list[Evidence]:
    """Beyond the paper: the same edits inside the whole model, and what they do to the next token."""
    from circuit_claims.papers.successor_heads.counting.measures_probes import RANDOM

    own = heads.in_context()
    if own is None:
        text = "Left out of the quick profile. Type: pytest claims/ --profile standard"
        return [_absent("The same edits inside the whole model", text)]
    scales, rows = own.facts["scales"], []
    for task in (name for name in tasks_of(own) if not name.endswith(RANDOM)):
        made, control = tables_of(own, task)[0], tables_of(own, task + RANDOM)[0]
        for at, scale in enumerate(scales):
            before, after = (float(np.nanmean(own.arrays[f"{task}/{name}"][at][made.edited])) for name in
                             ("own", "edited"))  # fmt: skip
            shares = [float(one.rates(edited_only=True)[at]) for one in (made, control)]
            rows.append([task, f"{scale:g}", *(f"{share:.0%}" for share in shares), f"{after:.2f}", f"{before:.2f}"])
    return [
        Table(
            title="Beyond the paper: the same edits inside the whole model",
            caption="The edit is added at the token's position after block 0, behind the two tokens before it in "
            "its task. Success: the successor of the edited order is the likeliest next token of the task, over cells "
            "with another residue than the token's own. Log probabilities are in nats, of the whole vocabulary.",
            columns=["task", "scale", "success", "random features", "log p, edited successor", "log p, own"],
            rows=rows,
        )
    ]


def bias_by_distance(heads: Counting) -> Evidence:
    """The head's mean logit around the successor."""
    table = heads.bias_of_the_head().measurement
    shares = ", ".join(f"{task} {share:.2f}" for task, share in table.facts["by task"].items())
    return Curves(
        title="Logits above and below the successor",
        caption=f"Mean over the tokens of {table.facts['profile of']}, each token's mean taken off; −1 is the token "
        f"itself. Share of equally distant pairs in which the greater value wins: {shares}.",
        x=table.arrays["distance"].tolist(),
        series=[Curve(name=heads.head.name, y=_numbers(table.arrays["profile"]), low=None, high=None)],
        xlabel="distance from the successor",
        ylabel="logit",
    )


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def feature_logits(heads: Counting) -> list[Evidence]:
    """What the head makes of each feature alone: the paper's bands of ten, the successors of f_i's residue outlined."""
    table = heads.features()
    shown = [text.strip().lower() for text in table.facts["shown"]]
    first = [place for place, text in enumerate(shown) if text not in shown[:place]]
    residues = [_residue(shown[place]) for place in first]
    marks = [[row, (residue - 1) % 10] for row, residue in enumerate(residues) if residue is not None]
    return [
        GridMap(
            title=f"Logits of the mod-10 features through {heads.head.name}",
            caption="Row: a value; column: f_i alone, read by the head, its mean taken off. The paper's figure has "
            f"bands ten apart. From {table.facts['runs']} autoencoders, on {' and '.join(table.facts['values'])}.",
            rows=[shown[place] for place in first],
            columns=[str(residue) for residue in range(10)],
            values=table.arrays["logits"][first].tolist(),
            vmin=float(table.arrays["logits"].min()),
            marks=marks,
            mark_label="values that f_i should promote",
            ylabel="value",
            xlabel="feature f_i",
            label="logit",
        )
    ]


def _residue(text: str) -> int | None:
    """The last digit of a number or number word, None for anything else."""
    from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS

    if text.isdigit():
        return int(text) % 10
    words = {word: order + 1 for order, word in enumerate(PAPER_TASKS[1].items)}
    return words[text.lower()] % 10 if text.lower() in words else None


def coverage_by_residue(table: Measurement) -> Evidence:
    """Modal coverage of each residue over runs, with the mean under shuffled indices as the null."""
    coverage = table.arrays["coverage"]
    low, high = percentile_band(coverage)
    return Bars(
        title="Modal coverage by residue",
        caption=f"Mean over {len(coverage)} autoencoders; thin line: their central 90 %; grey: residues shuffled.",
        labels=[f"f_{residue}" for residue in range(coverage.shape[1])],
        values=coverage.mean(0).tolist(),
        low=low.tolist(),
        high=high.tolist(),
        null=table.facts["shuffled"]["value"],
        label="share of the residue's tokens",
    )


def probe_rows_against_features(table: Measurement) -> Evidence:
    """Cosines of every probe row with every feature, equal residues outlined."""
    residues = [str(residue) for residue in range(10)]
    return GridMap(
        title="Probe rows against features",
        caption="Cosine of the mod-10 probe's row P_i and the feature f_j, each the mean of those there are: "
        f"{table.facts['rows']['own']['as found']:.3f} on average where residues are equal. Of many autoencoders and "
        f"probes the jackknife expects {table.facts['rows']['own']['value']:.3f}.",
        rows=residues,
        columns=residues,
        values=table.facts["rows"]["cosine"],
        vmin=-1.0,
        vmax=1.0,
        marks=[[residue, residue] for residue in range(10)],
        mark_label="equal residues",
        ylabel="probe row P_i",
        xlabel="feature f_j",
        label="cosine",
    )


def probe_accuracy(table: Measurement) -> Evidence:
    """Accuracy of the probes over moduli, left-out numbers and other tasks, with intervals and chance."""
    arrays = table.arrays
    low, high = arrays["outside_interval"].T
    return Curves(
        title="Probe accuracy by modulus",
        caption=f"{table.facts['probes']} probes of each modulus. Band: 90 % bootstrap over probes and tokens.",
        x=list(table.facts["moduli"]),
        series=[
            Curve(name="other tasks", y=arrays["outside"].tolist(), low=low.tolist(), high=high.tolist()),
            Curve(name="numbers left out of training", y=arrays["within"].tolist(), low=None, high=None),
            Curve(name="chance", y=arrays["chance"].tolist(), low=None, high=None),
        ],
        xlabel="modulus",
        ylabel="share right",
    )


def right_by_task(table: Measurement, read: str = "") -> Evidence:
    """What the mod-10 probe gets right of each task, and which tokens it gets wrong; `read` says what it was given."""
    outside = table.facts["outside"]
    rows = [[task, f"{right:.1f}", str(asked)] for task, (right, asked) in outside["by task"].items()]
    wrong = ", ".join(outside["failures"]) or "none"
    return Table(
        title="The mod-10 probe on other tasks",
        caption=f"{read} Mean over probes. Wrong in at least half of the probes: {wrong}.".strip(),
        columns=["task", "right", "asked"],
        rows=rows,
    )


def firing_curves(table: Measurement) -> Evidence:
    """How the most important neurons fire along the index."""
    shown = slice(0, SHOWN_POSITIONS)
    series = [
        Curve(name=_neuron(table, row), y=table.arrays["curves"][shown, row].tolist(), low=None, high=None)
        for row in range(SHOWN_NEURONS)
    ]
    return Curves(
        title="Firing curves of the most important neurons of MLP_0",
        caption=f"The first {SHOWN_POSITIONS} indices. {table.facts['periodic']} of {table.n} neurons have a period "
        "at p < 0.05 over all of them.",
        x=table.arrays["positions"][shown].tolist(),
        series=series,
        xlabel="index",
        ylabel="activation",
    )


def _neuron(table: Measurement, row: int) -> str:
    arrays = table.arrays
    return (
        f"neuron {int(arrays['neurons'][row])}: period {int(arrays['period'][row])}, p = {arrays['p_value'][row]:.2g}"
    )


def neuron_spectra(table: Measurement) -> Evidence:
    """Spectra of the same neurons and the mean of all sixteen, by period."""
    spectra = table.arrays["spectra"]
    positions = len(table.arrays["positions"])
    periods = positions / np.arange(1, len(spectra) + 1)
    kept = (periods >= 2) & (periods <= 30)
    order = np.flatnonzero(kept)[::-1]
    names = [
        *((_neuron(table, row), spectra[:, row]) for row in range(SHOWN_NEURONS)),
        ("mean of all", spectra.mean(1)),
    ]
    return Curves(
        title="Spectra of the firing curves",
        caption="Share of each curve's variance at each period, its straight line taken off.",
        x=periods[order].tolist(),
        series=[Curve(name=name, y=power[order].tolist(), low=None, high=None) for name, power in names],
        xlabel="period, in indices",
        ylabel="share of variance",
    )


def shares_of_pairs(table: Measurement) -> Evidence:
    """Swapped pairs in both spaces, with what the head makes of the true vectors, and the domain map alone."""
    names = {"held out": "left-out pairs", "domain only": "domain map alone", "roman": "Roman numerals x"}
    spaces = {"decoded": "output space", "counted": "successor space", "true": "successor space, true vector"}
    kept = [
        (f"{words}: {space}", table.facts[group][which])
        for group, words in names.items()
        for which, space in spaces.items()
        if which in table.facts.get(group, {})
    ]
    return Table(
        title="Index and domain maps",
        caption=f"Learned on four fifths of {table.facts['pairs']:,} swapped pairs of {len(table.facts['domains'])} "
        f"domains, ridge {table.facts['ridge']:g}. 90 % intervals, bootstrap over the tokens of a pair.",
        columns=["pairs and space", "share", "interval", "pairs"],
        rows=[
            [name, f"{one['value']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}", str(one["n"])] for name, one in kept
        ],
    )


def decoded_numerals(table: Measurement) -> Evidence:
    """For each Roman numeral, the share of swapped pairs that decode as the token of its index."""
    from circuit_claims.papers.successor_heads.dataset import ROMAN

    numerals = table.facts.get("numerals", [])
    return Bars(
        title="Index read from a Roman numeral",
        caption="Share of swapped pairs with this numeral that decode; it counts as read where more than half do. "
        "The paper's exceptions are I, V and X, which are letters too.",
        labels=[ROMAN.items[int(index) - 1] for index, _ in numerals],
        values=[share for _, share in numerals],
        label="share of its pairs",
    )
