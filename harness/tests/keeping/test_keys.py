"""Keys: what a figure hangs on changes them, and nothing else does; shown on a package on disk and on real measures."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib import metadata
from textwrap import dedent

import pytest
from circuit_claims import papers
from circuit_claims.keeping import keys
from circuit_claims.keeping.keys import SourceMissing, closure, closure_of_measure

FILES = {
    "__init__.py": '"""A package."""\n',
    "measures.py": '''
        """Measures."""
        from __future__ import annotations
        from typing import TYPE_CHECKING

        import numpy as np
        from . import tables
        from .evidence import caption
        from paper_on_disk.core import mean as average

        if TYPE_CHECKING:
            from .only_types import Anything

        LEVEL = 0.9
        """What a level is."""
        UNUSED = 1

        def score(subject: Anything, *, seed: int = 0):
            """The score."""
            from .lazy import weight  # imported when asked for
            return np.float64(average(tables.ROWS) * weight(LEVEL))

        def shown():
            return caption(score)
        ''',
    "tables.py": (
        "from .registry import entry\nROWS = [1, 2]\nROWS += [3]\nOTHER = 5\n\n@entry\ndef listed():\n    return 7\n"
    ),
    "registry.py": "def entry(function):\n    return function\n",
    "core.py": "from .deep.down import scale\n\ndef mean(rows):\n    return scale(sum(rows) / len(rows))\n",
    "deep/__init__.py": "from .below import scale\n",
    "deep/down.py": "from paper_on_disk.deep import scale\n",
    "deep/below.py": "def scale(x):\n    return x * factor()\n\ndef factor():\n    return 2\n\nprint('made')\n",
    "lazy.py": "def weight(level):\n    return level\n\ndef other():\n    return 1\n",
    "evidence.py": "def caption(what):\n    return f'the score of {what}'\n",
    "only_types.py": "class Anything:\n    size = 1\n",
    "progress.py": "def shown(done):\n    return done\n",
    "subjects.py": """
        class Subject:
            def rows(self):
                from .readers import read
                return read()
        """,
    "readers.py": "def read():\n    return [1]\n",
}


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Writes the package; `change(file, old, new)` changes it there, `key()` reads it anew."""
    root = tmp_path / "paper_on_disk"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield Package(root)
    for name in [name for name in sys.modules if name.startswith("paper_on_disk")]:
        del sys.modules[name]
    keys.forget()


class Package:
    def __init__(self, root):
        self.root = root

    def measured(self, name="score"):
        return getattr(importlib.import_module("paper_on_disk.measures"), name)

    def closure(self):
        keys.forget()
        subject = importlib.import_module("paper_on_disk.subjects").Subject()
        return closure_of_measure(self.measured(), subject)

    def key(self):
        return self.closure().parts()

    def change(self, name, old, new):
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))


def test_what_is_reached_is_what_the_measure_and_its_subject_name(on_disk):
    assert set(on_disk.closure().definitions) == {
        "paper_on_disk.measures:score", "paper_on_disk.measures:LEVEL", "paper_on_disk.tables:ROWS",
        "paper_on_disk.tables:listed", "paper_on_disk.registry:entry", "paper_on_disk.core:mean",
        "paper_on_disk.deep.below:scale", "paper_on_disk.deep.below:factor", "paper_on_disk.deep.below:statement 0",
        "paper_on_disk.lazy:weight", "paper_on_disk.subjects:Subject", "paper_on_disk.readers:read",
    }  # fmt: skip
    assert on_disk.closure().libraries == {"numpy": metadata.version("numpy")}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("evidence.py", "the score of", "what came of"),
        ("progress.py", "return done", "return done + 1"),
        ("only_types.py", "size = 1", "size = 2"),
        ("measures.py", '"""The score."""', '"""A score, in nats."""'),
        ("measures.py", '"""The score."""', ""),
        ("measures.py", '"""What a level is."""', '"""Another thing."""'),
        ("measures.py", "# imported when asked for", "# now"),
        ("measures.py", "(average(tables.ROWS) * weight(LEVEL))", "(\n        average(tables.ROWS)\n * weight(LEVEL))"),
        ("measures.py", "UNUSED = 1", "UNUSED = 2"),
        ("measures.py", "return caption(score)", "return caption(score) + '.'"),
        ("lazy.py", "return 1", "return 2"),
        ("tables.py", "OTHER = 5", "OTHER = 6"),
    ],
)
def test_what_no_figure_hangs_on_changes_no_key(on_disk, name, old, new):
    before = on_disk.key()
    on_disk.change(name, old, new)
    assert on_disk.key() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("measures.py", "seed: int = 0", "seed: int = 1"),
        ("measures.py", "LEVEL = 0.9", "LEVEL = 0.8"),
        ("lazy.py", "return level", "return 2 * level"),
        ("tables.py", "ROWS = [1, 2]", "ROWS = [1, 4]"),
        ("tables.py", "ROWS += [3]", "ROWS += [5]"),
        ("tables.py", "return 7", "return 8"),
        ("core.py", "len(rows)", "len(rows[1:])"),
        ("deep/below.py", "return 2", "return 3"),
        ("deep/below.py", "print('made')", "print('not made')"),
        ("deep/down.py", "from paper_on_disk.deep import scale", "def scale(x):\n    return x"),
        ("readers.py", "return [1]", "return [2]"),
    ],
)
def test_any_changed_code_that_the_figure_hangs_on_changes_the_key(on_disk, name, old, new):
    before = on_disk.key()
    on_disk.change(name, old, new)
    assert on_disk.key() != before


def test_another_version_of_a_library_is_another_key_and_another_build_is_not(on_disk, monkeypatch):
    before, version = on_disk.key(), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version(name) + "+build")
    assert on_disk.key() == before
    monkeypatch.setattr(metadata, "version", lambda name: "9.9.9" if name == "numpy" else version(name))
    assert on_disk.key()["libraries"] == {"numpy": "9.9.9"}
    assert on_disk.key()["source"] == before["source"]


def test_helpers_that_belong_to_no_library_count_as_the_measure_beside_them(on_disk, tmp_path):
    (tmp_path / "lab_helpers.py").write_text("def factor():\n    return 2\n\ndef other():\n    return 1\n")
    on_disk.change("core.py", "def mean(rows):\n    return scale", "from lab_helpers import factor\n\n"
                   "def mean(rows):\n    return factor() * scale")  # fmt: skip
    before = on_disk.closure()
    assert "lab_helpers:factor" in before.definitions
    assert "lab_helpers" not in before.libraries
    helpers = tmp_path / "lab_helpers.py"
    helpers.write_text(helpers.read_text().replace("return 1", "return 5"))
    assert on_disk.closure() == before
    helpers.write_text(helpers.read_text().replace("return 2", "return 3"))
    assert on_disk.closure().digest != before.digest


def test_a_module_passed_on_as_a_value_counts_whole(on_disk):
    on_disk.change("measures.py", "tables.ROWS", "vars(tables)['ROWS']")
    before = on_disk.key()
    on_disk.change("tables.py", "OTHER = 5", "OTHER = 6")
    assert on_disk.key() != before


def test_what_has_no_source_is_refused():
    made = {}
    exec("def typed(): return 1", {"__name__": "typed_at_a_prompt"}, made)
    with pytest.raises(SourceMissing, match="expected to find the file of module typed_at_a_prompt"):
        closure(made["typed"])
    assert keys.readable(made["typed"], closure) == [closure]


# The measures of both papers.


def measures() -> dict[str, object]:
    found = {}
    for module in pkgutil.walk_packages(papers.__path__, f"{papers.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            inner = getattr(value, "__wrapped__", None)
            code = getattr(value, "__code__", None)
            if inner is not None and value.__module__ == module.name and code is not None and code.co_name == "stored":
                found[name] = closure(inner)
    return found


@pytest.fixture(scope="module")
def found():
    return measures()


def test_no_measure_hangs_on_what_is_shown_or_fetched(found):
    assert len(found) >= 24
    for name, each in found.items():
        wrong = [
            module
            for module in each.modules
            if "evidence" in module or ".report" in module or ".running" in module or module.startswith(keys.APART)
        ]
        assert not wrong, f"{name} hangs on {wrong}"
        assert set(each.libraries) <= {
            "numpy", "scipy", "torch", "scikit-learn", "tslearn", "numba", "tokenizers", "transformers",
            "transformer-lens", "safetensors", "gguf",
        }  # fmt: skip


def test_measures_of_one_module_hang_on_their_own_code_alone(found):
    """Whether `measure` is imported from its room or from the api, which hands it on."""
    assert "circuit_claims.papers.successor_heads.counting.factoring" not in found["neuron_table"].modules
    assert "transformers" not in found["probe_table"].libraries


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """All measures' closures with some modules of the package read as if more stood in them."""
    real = keys._file

    def measured(more):
        for room, lines in more.items():
            text = real(f"circuit_claims.{room}").read_text(encoding="utf-8")
            (tmp_path / f"{room}.py").write_text(text + lines, encoding="utf-8")
        files = {f"circuit_claims.{room}": tmp_path / f"{room}.py" for room in more}
        monkeypatch.setattr(keys, "_file", lambda asked: files.get(asked) or real(asked))
        keys.forget()
        return measures()

    yield measured
    keys.forget()


DONE = "\nprint('another thing is done')\n"


def test_what_else_the_face_hands_on_changes_no_key(edited, found):
    """Whoever imports from the face hangs on the names that are asked for, not on all that stand in it."""
    rooms = ("running.plugin", "running.judge", "running.run", "keeping.cells", "judging.evidence", "places")
    face = (
        "\nfrom circuit_claims.judging.statistics import jeffreys_interval as another\n\n\n"
        "def one_more():\n    return another\n"
    )
    assert edited({**dict.fromkeys(rooms, DONE), "api": face}) == found


def test_what_a_measure_asks_the_face_for_changes_its_key(edited, found):
    after = edited({"judging.statistics.resampling": DONE})
    changed = {name for name in found if after[name] != found[name]}
    assert changed == {
        name for name, each in found.items() if "circuit_claims.judging.statistics.resampling" in each.modules
    }
    assert {"formation", "head_scores"} <= changed
    assert changed != set(found)


def test_a_name_of_the_face_is_as_good_as_one_of_its_room(on_disk):
    on_disk.change("core.py", "from .deep", "from circuit_claims.judging.statistics import percentiles\nfrom .deep")
    on_disk.change("core.py", "return scale", "return percentiles(rows) and scale")
    before = on_disk.closure()
    on_disk.change("core.py", "circuit_claims.judging.statistics", "circuit_claims.api")
    assert on_disk.closure() == before
    assert "circuit_claims.judging.statistics.resampling:percentiles" in before.definitions


@pytest.mark.parametrize(
    ("measure", "room"),
    [
        ("head_scores", "heads.ov_circuit"),
        ("head_scores", "models.architectures.forward"),
        ("head_scores", "models.architectures.layers"),
        ("head_scores", "papers.successor_heads.dataset"),
        ("head_scores", "papers.successor_heads.succession.nulls"),
        ("roman_score", "judging.statistics.shares"),
        ("headless_scores_table", "models.bridge"),
        ("head_cases", "heads.effects.direct"),
        ("head_cases", "heads.effects.losses"),
        ("head_cases", "papers.successor_heads.natural_text.behaviours"),
        ("probe_table", "heads.probes"),
        ("mod_ten_features_table", "heads.autoencoders.training"),
        ("multigram_samples", "papers.refined_llc.multigrams.labels"),
        ("ablation_effects", "toy.model"),
        ("path_ablation_table", "heads.composition"),
        ("stage_boundaries", "papers.refined_llc.stages.boundaries"),
        ("initialisation", "papers.refined_llc.stages.published_seed"),
    ],
)
def test_a_measure_hangs_on_the_rooms_that_its_figure_comes_from(found, measure, room):
    assert f"circuit_claims.{room}" in found[measure].modules


def test_a_live_run_brings_the_code_of_its_scores(tmp_path):
    from circuit_claims.papers.refined_llc.runs.live import LiveRun
    from circuit_claims.papers.refined_llc.stages.run_measures import leading_heads

    code = closure(leading_heads.__wrapped__, LiveRun)
    assert {"circuit_claims.heads.head_types", "circuit_claims.toy.checkpoints"} <= code.modules


def test_a_model_brings_the_code_that_reads_its_weights_and_tokens():
    from circuit_claims.models.resolve import LocalModel

    code = closure(LocalModel)
    assert {"circuit_claims.models.files.tensors", "circuit_claims.models.tokens"} <= code.modules


def test_nothing_is_imported_for_a_key():
    line = (
        "import sys; from circuit_claims.keeping.keys import closure\n"
        "from circuit_claims.papers.successor_heads.succession.measures import head_scores\n"
        "assert closure(head_scores.__wrapped__).libraries['torch']\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", line], check=True)
