"""Runs of real claims that are killed, interrupted or started twice: what is on disk stays readable, and a re-run
ends with the same bytes as a run that nobody touched."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
from circuit_claims.report import load_results, write_report

from tests.helpers.forked import Command, run
from tests.helpers.subjects import save_planted_subject

ROOT = Path(__file__).resolve().parents[3]
KILLS = 6
CLAIMS = str(ROOT / "claims" / "successor_heads" / "test_succession.py")
# Relative values: they stand in the re-run lines, and so the bytes of two runs in two folders can be the same.
WORDS = ("--subjects", "../planted", "--store", "store", "--report", "out", "--profile", "quick", "--offline")
# All but the claim with seven figures: it would only make the runs and their re-runs slower.
PYTEST = ("pytest", CLAIMS, "-k", "not exists", "-q", "-p", "no:cacheprovider", *WORDS)
RESULTS, EVENTS = Path("out/results.json"), Path("out/events.jsonl")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the planted model, and an environment whose cache lies in it."""
    root = tmp_path_factory.mktemp("kills")
    save_planted_subject(root / "planted")
    return root, {"CIRCUIT_CLAIMS_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(place):
    """The results of a run that nobody touched, and the seconds it took (the second of two: files are warm then)."""
    root, environment = place
    for name in ("first", "second"):
        folder = root / name
        folder.mkdir()
        started = time.perf_counter()
        done = run(PYTEST, folder, environment)
        seconds = time.perf_counter() - started
        assert done.status == 0, done.text
    assert (root / "first" / RESULTS).read_bytes() == (root / "second" / RESULTS).read_bytes()
    return (root / "second" / RESULTS).read_bytes(), seconds


def sub_folder(place, name):
    folder = place[0] / name
    folder.mkdir()
    return folder


def what_is_there_can_be_read(folder):
    """Whatever a kill left: files are whole or absent, and the event stream gives a report."""
    out = folder / "out"
    for path in (out / "results.json", out / "run.json"):
        assert not path.exists() or json.loads(path.read_text())
    assert not (out / "index.html").exists() or (out / "index.html").read_text().rstrip().endswith("</html>")
    if (folder / EVENTS).exists():
        assert write_report(out).index.exists()
        return len(load_results(out).verdicts)
    return 0


def killed_after(place, name, seconds):
    """The folder of a run killed `seconds` after its start; where it had already ended, of another killed earlier."""
    for attempt in range(12):
        folder = sub_folder(place, f"{name}-{attempt}")
        command = Command(PYTEST, folder, place[1])
        if command.wait(seconds * 0.7**attempt) is None:
            command.signal(signal.SIGKILL)
            if command.wait().status == -signal.SIGKILL:
                return folder
    raise AssertionError(f"{name}: no run was still going when it was to be killed")


@pytest.mark.timeout(1800)  # twelve runs: a minute on a quiet machine, far more on a busy one
def test_kills_at_any_moment_change_nothing_in_the_final_results(place, undisturbed):
    wanted, seconds = undisturbed
    draw = random.Random(20240101)
    verdicts = set()
    for number in range(KILLS):
        # One kill at a random moment of each sixth of the run, so that the writing of the report has its share.
        folder = killed_after(place, f"kill-{number}", (number + draw.random()) / KILLS * seconds)
        verdicts.add(what_is_there_can_be_read(folder))
        again = run(PYTEST, folder, place[1])
        assert again.status == 0, again.text
        assert (folder / RESULTS).read_bytes() == wanted
        assert not (folder / "store" / "set-aside").exists()
    assert len(verdicts) > 1, "every kill fell on the same side of the verdicts"


def test_two_runs_into_one_store_end_alike(place, undisturbed):
    folders = [sub_folder(place, name) for name in ("left", "right")]
    for folder in folders:
        (folder / "store").symlink_to(place[0] / "shared-store")
    (place[0] / "shared-store").mkdir()
    both = [Command(PYTEST, folder, place[1]) for folder in folders]
    for command in both:
        done = command.wait()
        assert done.status == 0, done.text
    assert [(folder / RESULTS).read_bytes() for folder in folders] == [undisturbed[0]] * 2
    assert not (place[0] / "shared-store" / "set-aside").exists()


def until(path, words, command, seconds=60.0):
    """Wait until a file holds `words`; an error if the command ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and words in path.read_text():
            return
        assert command.process.is_alive(), command.output.read_text()
        time.sleep(0.01)
    raise AssertionError(f"{words!r} did not come up in {path} within {seconds} s")


@pytest.mark.parametrize(("number", "words"), [(signal.SIGINT, "interrupted by the user"), (signal.SIGTERM, "")])
def test_an_interrupted_run_leaves_a_report_that_says_so(place, number, words):
    folder = sub_folder(place, f"signal-{int(number)}")
    # The full profile measures for seconds after the first event, so that the signal cannot come too late.
    command = Command((*PYTEST, "--profile", "full"), folder, place[1])
    until(folder / EVENTS, '"not here"', command)
    command.signal(number)
    assert command.wait().status != 0
    # Ctrl-C leaves pytest the time to write the report itself; SIGTERM leaves what was there.
    assert (folder / "out" / "index.html").exists() == (number == signal.SIGINT)
    done = run(("claims", "report", "out"), folder, place[1])
    assert done.status == 0, done.text
    page = (folder / "out" / "index.html").read_text()
    found = load_results(folder / "out")
    assert found.verdicts
    assert not found.complete
    assert "interrupted: " in page
    assert words in page


def test_a_torn_last_line_loses_that_line_only(place, undisturbed):
    folder = sub_folder(place, "torn")
    assert run(PYTEST, folder, place[1]).status == 0
    whole = load_results(folder / "out")
    lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    last = max(index for index, line in enumerate(lines) if json.loads(line)["event"] == "verdict")
    (folder / EVENTS).write_bytes(b"".join(lines[:last]) + lines[last][: len(lines[last]) // 2])
    done = run(("claims", "report", "out"), folder, place[1])
    assert done.status == 0, done.text
    assert len(load_results(folder / "out").verdicts) == len(whole.verdicts) - 1
    assert run(PYTEST, folder, place[1]).status == 0
    assert (folder / RESULTS).read_bytes() == undisturbed[0]
