"""The race resumes, and the gaps beside a long prompt are counted rightly."""

from pathlib import Path
from typing import Any

import pytest
from intaglio.benchmarks.harness.records import Records
from intaglio.benchmarks.harness.serving import race
from intaglio.benchmarks.harness.serving.cells import LONG, closed
from intaglio.benchmarks.harness.serving.long_prompt import gaps
from intaglio.benchmarks.harness.serving.servers import Room, Server, running
from intaglio.serving.load.sample import Sample

ROOM = Room(2, 64, 1)


def server(name: str, program: str = "pass") -> Server:
    return Server(name, Path("/dev/null"), lambda room, port: ["python", "-c", program, str(port)], {}, "/health")


SERVES = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def test_what_is_recorded_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(address: str, cell: Any, raw: Path) -> dict[str, Any]:
        measured.append(raw.name)
        if len(measured) == 3:
            raise SystemExit("interrupted")
        return {"max_ratio": 1.0, "long_first_token": 1.0}

    monkeypatch.setattr(race, "_measure", measure)
    records = Records(tmp_path / "records.jsonl")
    servers, cells = [server("a", SERVES), server("b", SERVES)], [closed(1, 1.0), LONG]
    with pytest.raises(SystemExit):
        race.race(servers, cells, ROOM, 2, records, tmp_path)
    race.race(servers, cells, ROOM, 2, Records(records.path), tmp_path)
    first_round = ["clients-1-a-0", "clients-1-b-0", "long-a-0", "long-a-0", "long-b-0"]
    assert measured == [*first_round, "clients-1-b-1", "clients-1-a-1", "long-b-1", "long-a-1"]
    race.race(servers, cells, ROOM, 2, Records(records.path), tmp_path)
    assert len(measured) == 9


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    ended = server("c", "print('no such model')")
    with pytest.raises(SystemExit, match="c does not start:\nno such model"), running(ended, ROOM, tmp_path / "log"):
        pass


def test_gaps_are_those_within_an_answer_before_and_while_the_long_prompt_is_read() -> None:
    first = Sample(0, 0.0, chunks=[1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 10.0])  # 1 s, then 2 and 3 s meanwhile
    second = Sample(1, 0.0, chunks=[20.0, 20.5])  # another answer: the time between two answers is no gap
    long = Sample(-1, 4.5, sent=4.5, chunks=[9.5], prompt_tokens=8000)
    found = gaps([first, second], long, start=2.0)
    assert (found["before"]["p50"], found["before"]["max"]) == (1.0, 1.0)
    assert (found["during"]["p50"], found["during"]["max"]) == (2.0, 3.0)
    assert found["max_ratio"] == 3.0
    assert found["long_first_token"] == 5.0
