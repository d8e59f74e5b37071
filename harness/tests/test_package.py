"""What is built from this tree: everything a run needs and nothing that stays in the repository."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 5_000_000  # bytes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network by the backend that pyproject.toml names."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling: pip install -e '.[tests]'")
    (path,) = builders.WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    return Path(path)


@pytest.fixture
def names(wheel: Path) -> Iterator[list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        yield archive.namelist()


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < LARGEST


def test_the_wheel_brings_code_papers_and_data_under_one_name(names):
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"circuit_claims"}
    needed = ["py.typed", "claims/__init__.py", "fixtures/models.toml", "report/templates/index.html.j2"]
    needed += [
        f"claims/{path.parent.name}/{file}"
        for path in (ROOT / "claims").glob("*/paper.toml")
        for file in ("__init__.py", "paper.toml", "deviations.toml")
    ]
    assert {f"circuit_claims/{name}" for name in needed} <= set(names)
    assert any(name.endswith(".schema.json") or "schema" in name for name in names if name.endswith(".json"))


def test_every_module_of_the_package_is_in_the_wheel(names):
    package = ROOT / "harness"
    modules = {str(path.relative_to(package)) for path in (package / "circuit_claims").rglob("*.py")}
    assert modules <= set(names)


def test_the_wheel_leaves_tests_benchmarks_and_checkpoints_in_the_repository(names):
    unwanted = [
        name
        for name in names
        if name.endswith((".safetensors", ".pyc"))
        or {"tests", "benchmarks", "reports", "docs"} & set(Path(name).parts)
        or Path(name).name == "conftest.py"
    ]
    assert unwanted == []


def test_pytest_finds_the_plugin_and_the_shell_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(entries).decode()
    assert "[pytest11]\ncircuit_claims = circuit_claims.running.plugin" in text
    assert "[console_scripts]\nclaims = circuit_claims.running.command_line:main" in text


def test_the_version_stands_in_one_place_and_the_citation_repeats_it():
    from circuit_claims import __version__

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {__version__}" in citation
