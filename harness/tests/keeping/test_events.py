"""The event stream: whole lines from many writers, older runs kept, and a disk that is full said in words."""

import json
import multiprocessing
import os

import numpy as np
import pytest
from circuit_claims.judging.measurement import Measurement
from circuit_claims.keeping.events import EventStream, StreamError

from tests.helpers import forked
from tests.helpers.toy_project import make_project
from tests.running.test_plugin import HOLDS, events

PYTEST = ("pytest", "claims/", "-p", "no:cacheprovider", "--store", "store", "--report")


def lines(stream):
    return [json.loads(line) for line in stream.path.read_text().splitlines()]


def test_what_is_written_comes_back_as_plain_values(tmp_path):
    stream = EventStream(tmp_path / "run")
    stream.start()
    stream.write("verdict", value=np.float32(0.5), many=np.arange(3), facts=Measurement("x", 1, facts={"a": 1}).facts)
    stream.write("note", text="line\nbreak \u2028 \udc80 \x00 </script>")
    first, second = lines(stream)
    assert first == {"event": "verdict", "value": 0.5, "many": [0, 1, 2], "facts": {"a": 1}}
    assert second["text"] == "line\nbreak \u2028 \udc80 \x00 </script>"


def test_an_older_stream_is_kept_under_a_number(tmp_path):
    stream = EventStream(tmp_path)
    for number in range(3):
        stream.start()
        stream.write("run", number=number)
    assert lines(stream) == [{"event": "run", "number": 2}]
    older = [json.loads((tmp_path / f"events.{number}.jsonl").read_text())["number"] for number in (1, 2)]
    assert older == [0, 1]


def _write_many(folder, writer):
    for number in range(200):
        EventStream(folder).write("line", writer=writer, number=number, padding="x" * (number * 37 % 5000))


def test_lines_of_many_writers_are_never_mixed(tmp_path):
    EventStream(tmp_path).start()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = lines(EventStream(tmp_path))
    assert [sorted(e["number"] for e in found if e["writer"] == writer) for writer in range(4)] == [[*range(200)]] * 4


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "a-file").write_text("")
    with pytest.raises(StreamError, match=r"cannot write the events of this run\n  expected"):
        EventStream(tmp_path / "a-file" / "run").start()
    done = forked.run((*PYTEST, "a-file/run"), make_project(tmp_path, HOLDS))
    assert done.status == 4
    assert "type: pytest claims/ --claims-report ANOTHER_FOLDER" in done.text
    assert "INTERNALERROR" not in done.text


# A limit on the size of files stands in for a full disk: from there on the stream's file cannot grow. The blank lines
# leave room below the limit for what the command prints.
FULL = """
    import pathlib
    import resource
    stream = pathlib.Path("out/events.jsonl")
    stream.write_text(stream.read_text() + "\\n" * 1_000_000)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (stream.stat().st_size + 50, hard))
"""
ROOM_AGAIN = "    finally:\n        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
JUDGED = '    judge("TY-01", found(0.6, 0.9))\n'
FIRST = HOLDS.replace(JUDGED, FULL + JUDGED)
PASSING = HOLDS.replace(JUDGED, f"{FULL}    try:\n    {JUDGED}{ROOM_AGAIN}")
SECOND = HOLDS.replace("test_it", "test_more").replace("TY-01", "TY-02")


def test_a_disk_that_stays_full_stops_the_run_in_words(tmp_path):
    root = make_project(tmp_path, FIRST + SECOND, claims=("TY-01", "TY-02"))
    done = forked.run((*PYTEST, "out", f"--junitxml={os.devnull}"), root)
    assert done.status == 2
    assert "cannot write the events of this run" in done.text
    assert "File too large" in done.text
    results = json.loads((root / "out" / "results.json").read_text())
    assert (results["complete"], results["verdicts"]) == (False, [])
    assert "Traceback" not in done.text
    assert "INTERNALERROR" not in done.text


def test_a_disk_that_was_full_for_a_moment_costs_one_verdict(tmp_path):
    root = make_project(tmp_path, PASSING + SECOND, claims=("TY-01", "TY-02"))
    done = forked.run((*PYTEST, "out"), root)
    assert done.status == 1
    text = (root / "out" / "events.jsonl").read_text()
    assert '"TY-02"' in text
    assert (root / "out" / "index.html").exists()
    results = json.loads((root / "out" / "results.json").read_text())
    outcomes = {verdict["claim"]: verdict["outcome"] for verdict in results["verdicts"]}
    assert outcomes == {"TY-01": "failed", "TY-02": "reproduced"}
    reason = next(verdict["reason"] for verdict in results["verdicts"] if verdict["claim"] == "TY-01")
    assert "StreamError: cannot write the events" in reason


def test_the_stream_of_a_run_begins_and_ends(tmp_path):
    root = make_project(tmp_path, HOLDS)
    assert forked.run((*PYTEST, "out"), root).status == 0
    assert [len(events(root, kind)) for kind in ("run", "verdict", "end")] == [1, 1, 1]
