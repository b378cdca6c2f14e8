"""The log: lines of ``key=value`` in which no text from outside can end a line or control a terminal."""

import json
import logging
import re
import sys
import time
from typing import Any, TextIO

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
"""Visible ASCII without the quotation mark, the equals sign and the backslash."""

access_log = logging.getLogger("intaglio.access")


def pairs(**values: Any) -> str:
    """Return ``key=value`` pairs on one line, without those that are None.

    A value of other characters than visible ASCII is written as a JSON string, which escapes them.
    """
    return " ".join(f"{key}={_value(value)}" for key, value in values.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class LineFormatter(logging.Formatter):
    """``time=... level=... message``; further lines, as those of a traceback, are indented by ``|``."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        text = record.getMessage()
        if record.name != access_log.name:
            text = pairs(logger=record.name, message=text)
        lines = [f"time={moment} level={record.levelname.lower()} {text}"]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        return "\n  | ".join(_visible(line) for line in lines)


def _visible(line: str) -> str:
    """Return a line whose control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def configure_logs(stream: TextIO | None = None) -> None:
    """Write the logs of intaglio and uvicorn to a stream, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    for name, level in (("intaglio", logging.INFO), ("uvicorn", logging.ERROR), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
