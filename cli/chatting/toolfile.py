"""The FILE of ``--tools``: functions of a Python file, or JSON schemas."""

import inspect
import json
import runpy
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UsageError

MODULE = "intaglio_tools"


@dataclass(frozen=True)
class Toolbox:
    """What the model is told of, None without tools, and the functions that can be run."""

    schemas: list[dict[str, Any]] | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


NO_TOOLS = Toolbox()


def read_tools(path: Path) -> Toolbox:
    """The tools of a file. A Python file is executed: its public functions, not those that it imports, are tools.

    Raises:
        UsageError: no such file, neither .py nor .json, or without tools that can be described.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; --tools takes FILE.py with functions, or FILE.json with schemas")
    if path.suffix == ".py":
        return _functions(path)
    if path.suffix == ".json":
        return _schemas(path)
    raise UsageError(f"{path}: --tools takes FILE.py with functions, or FILE.json with schemas; rename it")


def _functions(path: Path) -> Toolbox:
    from ...runtime.chat.tool_loop import describe

    try:
        names = runpy.run_path(str(path), run_name=MODULE)
    except Exception as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(path)), None
        )
        line = error.lineno if isinstance(error, SyntaxError) else line
        where = f"{path}: line {line}" if line else str(path)
        raise UsageError(f"{where}: {type(error).__name__}: {error}; mend the file") from None
    functions = {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value) and value.__module__ == MODULE and not name.startswith("_")
    }
    if not functions:
        raise UsageError(f"{path} has no functions; define one, with type hints and a docstring")
    try:
        return Toolbox(describe(functions), functions)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _schemas(path: Path) -> Toolbox:
    from ...runtime.chat.tool_schema import function_of

    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); mend the file") from None
    schemas = found if isinstance(found, list) else [found]
    if not schemas or not all(isinstance(one, dict) for one in schemas):
        raise UsageError(f"{path}: expected a list of JSON schemas, or one; mend the file")
    try:
        for one in schemas:
            function_of(one)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Toolbox(schemas)
