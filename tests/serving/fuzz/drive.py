"""Send the cases to a server, judge its answers, and compare what it holds before and after."""

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

from ..process import serving
from ..raw import Answer, connection, read_answer
from .cases import Case, draw_case
from .forms import Endpoint, endpoints

AT_ONCE = 8
BODY_TIMEOUT = 4  # seconds
ANSWER_TIMEOUT = 120.0  # seconds; the longest legal calls are of 2,048 texts, beside others and on a busy machine
TRIES = 4  # of a case that this process, and not the server, has held up
OWN_SOCKETS = 4
"""Sockets of an idle server: the one that listens, the loop's two for signals, and the connection that asks."""
SETTLES = 60.0  # seconds after which the server must hold no more than before
MORE_MEMORY = 48 << 20
"""Bytes that the second half of the cases may add: to caches that are not full yet, and to the allocator's pools.

Measured over 4,000 cases: 52 MB after the first 250, half of it in the next 1,000, 2 MB in the last 1,000.
"""


class Held(NamedTuple):
    """What a server holds: requests in its engines, open files, threads by name, and bytes of memory."""

    running: int
    waiting: int
    files: Counter[str]
    threads: Counter[str]
    memory: int


@dataclass
class Report:
    """The answers to cases: how many of each status, and those that are wrong.

    Attributes:
        before, after: what the server holds after the first half of the cases, and after the second.
    """

    cases: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    before: Held | None = None
    after: Held | None = None

    def text(self) -> str:
        """Return the report for a person."""
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        lines = [f"{self.cases} cases: {counts}", f"before {self.before}", f"after  {self.after}"]
        return "\n".join([*lines, f"{len(self.findings)} findings", *self.findings])


def fuzz(
    artifacts: Mapping[str, Path],
    cases: int,
    seed: int,
    first: int = 0,
    report_progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Start a server of artifacts, send it cases, and return the report."""
    report = Report()
    named = [f"{name}={folder}" for name, folder in artifacts.items()]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        serving(*named, "--body-timeout", BODY_TIMEOUT, log=log) as (process, address),
    ):
        found = endpoints(address, list(artifacts))
        good = [answer_of(address, endpoint) for endpoint in found]
        with ThreadPoolExecutor(AT_ONCE) as executor:
            # The server's pool of threads and its caches grow to their size once: with calls that take long together,
            # in cases that do not count, and in the first half of those that do.
            list(executor.map(lambda _: tokenize_much(address, found), range(2 * AT_ONCE)))
            list(executor.map(lambda index: run(address, draw_case(index, seed + 1, found)), range(8 * AT_ONCE)))
            middle, last = first + cases // 2, first + cases
            for numbers in (range(first, middle), range(middle, last)):
                report.before = settled(process, address, None)
                for index, (case, outcome) in zip(
                    numbers, executor.map(lambda index: _tried(address, index, seed, found), numbers), strict=True
                ):
                    report.cases += 1
                    report.statuses[str(outcome.status) if isinstance(outcome, Answer) else outcome] += 1
                    if problem := judge(case, outcome):
                        report.findings.append(f"case {index} ({case.name}): {problem}\n    {case.shown[:400]}")
                    report_progress(report)
        assert report.before is not None
        report.after = settled(process, address, report.before)
        report.findings += differences(report.before, report.after)
        for endpoint, answer in zip(found, good, strict=True):
            if (now := answer_of(address, endpoint)) != answer:
                report.findings.append(f"{endpoint.path} answers {now} and not {answer} any more")
        log.seek(0)
        lines = log.read().splitlines()
        report.findings += [f"log: {line}" for line in lines if " level=error " in line or " level=warning " in line]
    return report


def _tried(address: str, index: int, seed: int, found: list[Endpoint]) -> tuple[Case, Answer | str]:
    case = draw_case(index, seed, found)
    return case, run(address, case)


def run(address: str, case: Case) -> Answer | str:
    """Send a case; return the answer, "hang", or "left" where the client does not wait.

    A request that this process has not sent in time, because its other threads had the lock, is sent again.
    """
    tried = 0
    while True:
        tried += 1
        begun = time.monotonic()
        outcome, sent = _sent(address, case)
        gone = isinstance(outcome, Answer) and outcome.status in (0, 408)
        if not gone or sent - begun < BODY_TIMEOUT / 2 or tried == TRIES:
            return outcome


def _sent(address: str, case: Case) -> tuple[Answer | str, float]:
    """Send a case once; return the outcome as ``run``, and the time when all had been sent."""
    sent = time.monotonic()
    try:
        with connection(address, ANSWER_TIMEOUT) as connected:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                for part in case.parts:
                    connected.sendall(part)
                if case.ending == "half":
                    connected.shutdown(socket.SHUT_WR)
            sent = time.monotonic()
            if case.ending == "leave":
                return "left", sent
            with connected.makefile("rb") as stream:
                return read_answer(stream), sent
    except TimeoutError:
        return "hang", sent


def judge(case: Case, outcome: Answer | str) -> str | None:
    """Return what is wrong with an answer; None where nothing is."""
    if outcome == "left":
        return None
    if isinstance(outcome, str):
        return outcome
    if outcome.status == 0:
        return None if case.may_close else "the connection was closed without an answer"
    if outcome.status >= 500 or b'"server_error"' in outcome.body:
        return f"{outcome.status}: {outcome.body[:300]!r}"
    if outcome.status < 400:
        return f"success: {outcome.status} {outcome.body[:300]!r}" if case.fails else None
    try:
        error = outcome.error()
        fine = isinstance(error["message"], str) and set(error) == {"message", "type", "param", "code"}
    except (ValueError, KeyError, TypeError):
        fine = False
    return None if fine else f"not an error in OpenAI's form: {outcome.status} {outcome.body[:300]!r}"


def answer_of(address: str, endpoint: Endpoint) -> Any:
    """Return the answer to the good request, without what differs each time."""
    answer = httpx.post(f"{address}{endpoint.path}", json={**endpoint.good, "temperature": 0}, timeout=60)
    if answer.status_code == 400:  # no generation, no temperature
        answer = httpx.post(f"{address}{endpoint.path}", json=endpoint.good, timeout=60)
    body = json.loads(answer.text)
    return answer.status_code, _without(body, ("id", "created", "created_at", "completed_at", "usage", "item_id"))


def tokenize_much(address: str, found: list[Endpoint]) -> None:
    """Make a call that keeps one of the server's threads for some time."""
    good = next(endpoint.good for endpoint in found if endpoint.path == "/tokenize")
    httpx.post(f"{address}/tokenize", json={**good, "prompt": "In 1942 " * 5000}, timeout=ANSWER_TIMEOUT)


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner, names) for key, inner in value.items() if key not in names}
    return [_without(inner, names) for inner in value] if isinstance(value, list) else value


def settled(process: "subprocess.Popen[str]", address: str, before: Held | None) -> Held:
    """Return what a server holds once it is idle and has closed its connections, or after SETTLES."""
    end = time.monotonic() + SETTLES
    while True:
        now = held(process, address)
        idle = now.running == now.waiting == 0 and now.files["socket"] <= OWN_SOCKETS
        if (idle and (before is None or not differences(before, now))) or time.monotonic() > end:
            return now
        time.sleep(0.2)


def held(process: "subprocess.Popen[str]", address: str) -> Held:
    """Return what a server holds now."""
    metrics = httpx.get(f"{address}/metrics", timeout=60).text
    counts = Counter[str]()
    for line in metrics.splitlines():
        for name in ("running", "waiting"):
            if line.startswith(f"vllm:num_requests_{name}{{"):
                counts[name] += int(float(line.rpartition(" ")[2]))
    seen = Path(f"/proc/{process.pid}")
    memory = psutil.Process(process.pid).memory_info().rss
    return Held(counts["running"], counts["waiting"], _files(seen), _threads(seen), memory)


def _files(process: Path) -> Counter[str]:
    """Return how many files of each name are open; sockets have one name."""
    found = Counter[str]()
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[str(entry.readlink()).partition(":")[0]] += 1
    return found


def _threads(process: Path) -> Counter[str]:
    """Return how many threads of each name there are."""
    found = Counter[str]()
    for entry in (process / "task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[(entry / "comm").read_text().strip()] += 1
    return found


def differences(before: Held, after: Held) -> list[str]:
    """Return what a server holds more than before."""
    found = [
        f"{name} grew from {old:,} to {new:,}"
        for name, old, new, more in (
            ("running", before.running, after.running, 0),
            ("waiting", before.waiting, after.waiting, 0),
            ("memory", before.memory, after.memory, MORE_MEMORY),
        )
        if new > old + more
    ]
    for name, old, new in (("files", before.files, after.files), ("threads", before.threads, after.threads)):
        found += [f"{name}: {count} more of {one}" for one, count in (new - old).items()]
    return found
