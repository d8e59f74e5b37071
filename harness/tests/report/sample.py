"""A made-up run for the tests of the report. SYNTHETIC: no model was measured, every figure is drawn at random.

The events have the shape the harness writes; models, papers and claims are named so that nobody takes them for real.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Event = dict[str, Any]

PAPER = {
    "id": "synthetic_heads",
    "title": "Synthetic Heads: A Made-up Paper for Testing Reports",
    "authors": ["A. Nobody", "B. Noone"],
    "venue": "nowhere",
    "year": 2000,
    "url": "https://example.org/synthetic",
}
ENVIRONMENT = {
    "python": "3.11.0",
    "torch": "0.0.1",
    "packages": {"torch": "0.0.1", "numpy": "0.0.2", "transformers": "0.0.3"},
    "platform": "Linux x86_64",
    "device": "cpu",
    "threads": 2,
    "commit": "0123456789ab",
}
MODELS = ("synthetic-small", "synthetic-wide", "synthetic-deep")


def claim(number: int, kind: str, expected: Any, **changes: Any) -> Event:
    """A claim as the run event holds it."""
    return {
        "id": f"SY-{number:02d}",
        "paper": PAPER["id"],
        "title": f"Made-up sentence number {number} about heads",
        "locus": f"section {number}",
        "kind": kind,
        "quantity": "made-up score of the best head",
        "unit": "ratio",
        "expected": expected,
        "trust": "P",
        "margin": 2.0,
        "margin_reason": "made up, so that the interval can fall on either side of it",
        "subjects": ["synthetic-paper-model"],
        "text": "none: weights only",
        "controls": ["shuffled map"],
        "positive_controls": [],
        "cost": "minutes",
        "others": True,
        "origin": "paper",
        "requires": [],
        "note": "",
    } | changes


CLAIMS = (
    claim(1, "value", 10.0, title="The made-up data set has ten entries per head", margin=1.0),
    claim(4, "identity", "L5H3", unit="head", margin=0.05, title="The best made-up head is L5H3"),
    claim(5, "at_least", 8.0, title="The best head's score is eight times the runner-up's", trust="F"),
    claim(6, "absence", 0.5, unit="share of tokens", margin=0.0, title="No made-up head scores above one half"),
    claim(7, "existence", 0.5, unit="share of tokens", margin=0.0, title="Some made-up head scores above one half"),
    claim(8, "at_most", 0.01, unit="share of tokens", margin=0.01, trust="D", title="Without the head, almost nothing"),
    claim(25, "curve", [[1.0, 0.1], [100.0, 0.6]], margin=0.1, trust="?", title="The score grows over training"),
)


def measurement(value: Any, low: float | None = None, high: float | None = None, **changes: Any) -> Event:
    """A measurement as a verdict event holds it."""
    interval = None if low is None else {"low": low, "high": high, "level": 0.9, "method": "bootstrap over tokens"}
    return {
        "quantity": "made-up score of the best head",
        "value": value,
        "interval": interval,
        "unit": "ratio",
        "support": {},
        "p_value": None,
        "n": 1013,
        "seed": 0,
        "dtype": "float32",
        "batch": None,
        "status": "complete",
        "facts": {"path": "mlp0"},
        "cost": {"seconds": 1.25, "peak_bytes": 900_000_000},
        "origin": "live",
        "key": "ab" * 32,
    } | changes


def control(name: str, must: str, outcome: str, value: float) -> Event:
    """A control as a verdict event holds it."""
    return {"name": name, "must": must, "outcome": outcome, "measurement": measurement(value, value - 0.1, value + 0.2)}


def verdict(claim_id: str, subject: str, outcome: str, **changes: Any) -> Event:
    """A verdict event."""
    node = f"claims/synthetic/test_synthetic.py::test_{claim_id}[{subject}]"
    return {
        "event": "verdict",
        "claim": claim_id,
        "subject": subject,
        "scope": "generalisation",
        "node": node,
        "outcome": outcome,
        "reason": "",
        "rule": "low end of the 90% interval at or above 8 less the margin 2",
        "flip": "would flip at a margin of 4.9 or more",
        "expected": next((one["expected"] for one in CLAIMS if one["id"] == claim_id), None),
        "margin": next((one["margin"] for one in CLAIMS if one["id"] == claim_id), None),
        "measurement": None,
        "controls": [],
        "evidence": [],
        "deviation": None,
        "rerun": f'pytest "{node}"',
        "seconds": 2.5,
        "command": "",
    } | changes


def head_map(seed: int, layers: int = 24, heads: int = 14) -> Event:
    """Evidence: a made-up map with one strong head and one missing cell."""
    values = np.round(np.random.default_rng(seed).beta(1, 30, (layers, heads)), 4).tolist()
    values[layers // 2][heads // 2], values[1][1] = 0.58, None
    mark = [layers // 2, heads // 2]
    return {"type": "head_map", "title": "Made-up score of every head", "caption": "Synthetic figures.",
            "values": values, "vmin": 0.0, "vmax": 0.6, "mark": mark, "label": "score"}  # fmt: skip


def evidence(seed: int = 0) -> list[Event]:
    """One piece of evidence of every type."""
    draws = np.round(np.random.default_rng(seed).normal(0.1, 0.02, 400), 5).tolist()
    labels, steps = ["numbers", "number words", "ordinals", "days", "months", "letters"], [0, 1, 10, 100, 1000, 10000]
    scores = [0.42, 0.61, 0.35, 0.78, 0.55, 0.2]
    return [
        head_map(seed),
        {"type": "bars", "title": "Score by task", "caption": "", "labels": labels, "values": scores,
         "low": [s - 0.06 for s in scores], "high": [s + 0.05 for s in scores], "threshold": 0.5, "null": 0.1},
        {"type": "ranked", "title": "Leading heads", "caption": "", "labels": ["L12H7", "L3H2", "L20H1"],
         "values": [0.58, 0.23, 0.2], "low": [0.51, 0.19, 0.15], "high": [0.63, 0.28, 0.26],
         "null_band": [0.05, 0.16], "threshold": 0.5},
        {"type": "lines", "title": "Score over training", "caption": "", "x": steps, "xscale": "log",
         "series": [{"name": "best head", "y": [0, 0, 0.02, 0.2, 0.5, 0.6], "low": [0, 0, 0, 0.1, 0.4, 0.5],
                     "high": [0.1, 0.1, 0.1, 0.3, 0.6, 0.7]}, {"name": "runner-up", "y": [0, 0, 0, 0.1, 0.1, 0.2]}],
         "xlabel": "training step", "ylabel": "score"},
        {"type": "distribution", "title": "Null of the maximum", "caption": "", "values": draws, "observed": 0.58,
         "label": "largest score of all heads"},
        {"type": "table", "title": "Settings under which the verdict changes", "caption": "Synthetic.",
         "columns": ["path", "token itself", "weighting", "score", "verdict"],
         "rows": [["mlp0", "in", "paper", 0.31, "contradicted"], ["mlp0", "out", "paper", 0.52, "reproduced"],
                  ["block0", "in", "tasks", 0.28, "contradicted"]], "mark_rows": [1]},
        {"type": "text", "title": "A note", "caption": "", "text": "Two lines\nof text."},
    ]  # fmt: skip


def run_event(**changes: Any) -> Event:
    """The first event of a run."""
    return {
        "event": "run",
        "schema": 1,
        "id": "synthetic-run",
        "started": "2000-01-01T00:00:00+0000",
        "argv": "",
        "environment": ENVIRONMENT,
        "profile": "quick",
        "papers": [PAPER],
        "claims": list(CLAIMS),
    } | changes


def subject_event(name: str) -> Event:
    """A subject's card."""
    card = {"architecture": "made up", "parameters": 494_032_768, "n_layers": 24, "n_heads": 14, "d_model": 896,
            "vocab": 151_936, "licence": "none", "digest": "cd" * 32, "source": "drawn at random",
            "tokens available": {"numbers": "10 of 800", "days": "14 of 14"}, "note": "synthetic"}  # fmt: skip
    return {"event": "subject", "name": name, "card": card}


def end_event(**changes: Any) -> Event:
    """The last event of a run that came to its end."""
    return {"event": "end", "finished": "2000-01-01T00:03:20+0000", "exitstatus": 1} | changes


def model_verdicts(name: str, seed: int) -> list[Event]:
    """Verdicts of every outcome on one made-up model."""
    held = [control("shuffled map", "fail", "contradicted", 1.1), control("planted head", "pass", "reproduced", 20.0)]
    share = {"unit": "share of tokens"}
    return [
        verdict("SY-04", name, "inconclusive", rule="L5H3 comes first in at least 95% of resamples (62.0% found)",
                measurement=measurement("L5H3", support={"L5H3": 0.62, "L12H7": 0.31, "L3H2": 0.07}, unit="head")),
        verdict("SY-05", name, "contradicted", measurement=measurement(2.4 + seed / 10, 1.9, 3.1 + seed / 10),
                controls=held, evidence=evidence(seed)),
        verdict("SY-06", name, "contradicted", measurement=measurement(0.58, 0.53, 0.63, p_value=0.002, **share),
                deviation={"reason": "made up: this one was known", "date": "2000-01-01"}, controls=held[:1]),
        verdict("SY-07", name, "reproduced", controls=held,
                measurement=measurement(0.58, 0.53, 0.63, p_value=0.002, origin="store", **share)),
        verdict("SY-08", name, "failed", controls=[control("shuffled map", "fail", "reproduced", 0.005)],
                reason="control 'shuffled map' must fail but came out reproduced",
                measurement=measurement(0.004, 0.001, 0.009, **share)),
    ]  # fmt: skip


def sample_events() -> list[Event]:
    """A whole made-up run: three models, every outcome, every type of evidence, claims that were not judged."""
    events = [run_event(), *(subject_event(name) for name in MODELS)]
    reason = "the weights are not on this machine and the hub cannot be reached"
    for number in (4, 5, 6, 7):
        events.append(
            verdict(f"SY-{number:02d}", "synthetic-paper-model", "not here", scope="reproduction", rule="none applied",
                    flip="", reason=reason, command="claims fetch synthetic-paper-model")
        )  # fmt: skip
    events.append(verdict("SY-01", "synthetic-tokenizer", "reproduced", scope="reproduction",
                          measurement=measurement(10.0, 10.0, 10.0), controls=[]))  # fmt: skip
    for seed, name in enumerate(MODELS):
        events += model_verdicts(name, seed)
    events.append({"event": "store", "kind": "set aside", "path": "entry", "reason": "its sha256 did not match"})
    return [*events, end_event()]


def to_lines(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Events as the bytes of `events.jsonl`."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def write_events(folder: Path, events: Iterable[Mapping[str, Any]] | None = None) -> Path:
    """Write a run's folder with these events (the whole sample by default)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_bytes(to_lines(sample_events() if events is None else events))
    return folder
