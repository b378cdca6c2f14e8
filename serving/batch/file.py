"""Answer a file of requests in process: in its order, several at once, from where a run was interrupted."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

from starlette.types import ASGIApp

from ...errors import OutputError
from .lines import Line, LineReader, answer_line

MAX_LINE = 16 << 20
"""Bytes of a line; a longer one cannot be sent."""

Progress = Callable[[int, int, bool], object]
"""``progress(done, lines, failed)``: after each line, and whether that has an error or a status that is not 200."""


async def answer_file(app: ASGIApp, source: Path, target: Path, at_once: int, progress: Progress) -> None:
    """Answer the lines of a file, and write each answer when those before it are written.

    The lines that the target has already are not answered again. Blank lines of the source are left out.

    Args:
        at_once: how many requests the application has at the same time.

    Raises:
        OutputError: the target has answers of another file.
        OSError: a file cannot be read or written.
    """
    with source.open("rb") as requests:
        total = sum(1 for _ in raw_lines(requests))
        requests.seek(0)
        reader = LineReader()
        lines = (reader.read(raw) for raw in raw_lines(requests))
        with target.open("a+b") as answers:
            done = _skip_answered(lines, answers, source, target)
            progress(done, total, False)
            async with aclosing(_answered(app, lines, at_once)) as found:
                async for answer in found:
                    answers.write(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                    answers.flush()  # an answer that is written is not made again
                    done += 1
                    response = answer["response"]
                    progress(done, total, response is None or response["status_code"] != 200)


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are not blank; of a line that is too long its beginning, which is not JSON."""
    while raw := stream.readline(MAX_LINE):
        rest = raw
        while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE)
        if raw.strip():
            yield raw


def _skip_answered(lines: Iterator[Line], answers: BinaryIO, source: Path, target: Path) -> int:
    """Take the lines off that have answers, cut off an answer that is not complete, and return how many there are.

    Raises:
        OutputError: the answers are not those of the first lines.
    """
    answers.seek(0)
    done = end = 0
    for raw in answers:
        if not raw.endswith(b"\n"):  # the run was interrupted while it wrote
            break
        done += 1
        line = next(lines, None)
        if line is None or _custom_id(raw) != (line.custom_id,):
            raise OutputError(
                f"{target}: line {done} is not the answer to line {done} of {source}; give another file for the answers"
            )
        end += len(raw)
    answers.truncate(end)
    return done


def _custom_id(raw: bytes) -> tuple[Any, ...]:
    """Return the id of an answer; an empty tuple where it is none."""
    try:
        values = json.loads(raw)
    except ValueError:
        return ()
    return (values["custom_id"],) if isinstance(values, dict) and "custom_id" in values else ()


async def _answered(app: ASGIApp, lines: Iterator[Line], at_once: int) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the answers in order; ``at_once`` requests are made ahead of the one that is yielded."""
    window: deque[asyncio.Task[dict[str, Any]]] = deque()
    try:
        for line in lines:
            window.append(asyncio.create_task(answer_line(app, line)))
            if len(window) >= at_once:
                yield await window[0]
                window.popleft()
        while window:
            yield await window[0]
            window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)
