"""`results.json` and `run.json`: written whole, read with their schema version, brought up to date explicitly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from circuit_claims.judging.json_values import to_plain
from circuit_claims.report.collect import EVENTS, ReportError, read_run
from circuit_claims.report.model import SCHEMA, Record, Results, RunRecord, stable_view

RESULTS, RUN = "results.json", "run.json"
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")


def _subjects_by_scope(data: dict[str, Any]) -> dict[str, Any]:
    """To version 2: a claim lists its subjects by scope (read off the verdicts) and says whether others are asked."""
    scopes = {(verdict["claim"], verdict["subject"]): verdict["scope"] for verdict in data.get("verdicts", ())}
    for claim in data.get("claims", ()):
        listed: dict[str, list[str]] = {}
        for name in claim.get("subjects", ()):
            scope = scopes.get((claim["id"], name), "reproduction")
            listed.setdefault("reproduction" if scope == "generalisation" else scope, []).append(name)
        claim["subjects"], claim["others"] = listed, claim.pop("applies_to", "any") != "paper"
    return data


def _judged_apart(data: dict[str, Any]) -> dict[str, Any]:
    """To version 3: what was not run is not here, and counts of a scope are of what was judged."""
    for verdict in data.get("verdicts", ()):
        verdict["outcome"] = "not here" if verdict["outcome"] == "not run" else verdict["outcome"]
    for row in data.get("tallies", {}).values():
        away = row.pop("not run", 0)
        row.update({"does not apply": 0, "cannot be decided here": 0, "needs an accelerator": 0, "not here": away})
        row["n"] -= away
    return data


# From a version to the next: each takes the whole file of that version and returns the next one's. A release that
# changes what results.json holds raises SCHEMA by one and adds its step here; steps are never removed.
UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _subjects_by_scope, 2: _judged_apart}


def json_bytes(data: Any) -> bytes:
    """`data` as the bytes of a JSON file: sorted keys, two spaces, UTF-8 escapes, no number JSON does not know."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def results_bytes(results: Results) -> bytes:
    """The file `results.json` of `results`; equal results give equal bytes."""
    return json_bytes(stable_view(results))


def run_bytes(run: RunRecord) -> bytes:
    """The file `run.json` of `run`."""
    return json_bytes(to_plain(run.model_dump(by_alias=True, mode="python")))


def load_results(path: Path) -> Results:
    """Read results from a `results.json`, or from a run's folder (its event stream where no results were written).

    Raises `ReportError` for a file that is missing, not JSON, of a newer schema, or not as its schema says.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / RESULTS).exists() and (path / EVENTS).exists():
            return read_run(path).results
        path = path / RESULTS
    return _load(Results, path)


def load_run(path: Path) -> RunRecord:
    """The `run.json` in the folder `path`, or beside the `results.json` at `path`; empty where there is none."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if (folder / RUN).exists():
        return _load(RunRecord, folder / RUN)
    return read_run(folder).run if (folder / EVENTS).exists() else RunRecord()


def _load(record: type[Any], path: Path) -> Any:
    data = _parse(path)
    found = data.get("schema")
    if not isinstance(found, int) or isinstance(found, bool):
        raise ReportError(f"{path} is not a file of this harness\n  expected a field `schema`\n  found    {found!r}")
    if found > SCHEMA:
        raise ReportError(
            f"{path} was written by a newer harness\n  expected schema {SCHEMA} or older\n  found    schema {found}\n"
            "  Type: pip install --upgrade circuit-claims"
        )
    return _validate(record, upgrade(data, path), path)


def upgrade(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """`data` brought to the current schema, one version at a time. Raises `ReportError` where a step is missing."""
    while data["schema"] < SCHEMA:
        step = UPGRADES.get(data["schema"])
        if step is None:
            raise ReportError(
                f"{path} cannot be brought up to date\n"
                f"  expected schema {SCHEMA}, or an older one with a known upgrade\n"
                f"  found    schema {data['schema']}\n  Run the claims again to get a file of the current schema."
            )
        data = {**step(dict(data)), "schema": data["schema"] + 1}
    return data


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ReportError(
            f"no results to read\n  expected {path}\n  found    {error.strerror}\n"
            "  Type: pytest claims/ --claims-report FOLDER"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"{path} is damaged\n  expected JSON\n  found    {error}\n"
            "  The event stream beside it may still be whole. Type: claims report FOLDER"
        ) from None
    if not isinstance(data, dict):
        raise ReportError(f"{path} is damaged\n  expected a JSON object\n  found    a {type(data).__name__}")
    return data


def _validate(record: type[Record], data: dict[str, Any], path: Path) -> Record:
    try:
        return record.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise ReportError(
            f"{path} is not as schema {SCHEMA} says\n  expected {place}: {first['msg']}\n"
            f"  found    {str(first['input'])[:200]!r}\n  Type: claims report FOLDER to write it again from its events."
        ) from None


def results_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `results.json`, made from the records themselves."""
    made = Results.model_json_schema(by_alias=True, mode="validation")
    made["required"] = sorted({*made.get("required", []), "schema"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


if __name__ == "__main__":
    from circuit_claims.keeping.atomic import write_bytes_atomically

    write_bytes_atomically(SCHEMA_FILE, json_bytes(results_schema()))
