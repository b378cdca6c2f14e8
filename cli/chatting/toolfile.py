"""The tools of ``--tools FILE``: functions of a Python file, or JSON schemas."""

import inspect
import runpy
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...files.json_file import read_json

MODULE = "intaglio_tools"  # the name under which a Python file is executed


@dataclass(frozen=True)
class Toolbox:
    """The schemas for the model, None without tools, and the functions that can be executed, by name."""

    schemas: list[dict[str, Any]] | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


NO_TOOLS = Toolbox()


def read_tools(path: Path) -> Toolbox:
    """Read a tool file. A Python file is executed; its tools are the public functions that it defines.

    Raises:
        UsageError: the file does not exist, is neither .py nor .json, fails, or has no tools with a schema.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; --tools takes FILE.py with functions, or FILE.json with schemas")
    if path.suffix == ".py":
        return _read_functions(path)
    if path.suffix == ".json":
        return _read_schemas(path)
    raise UsageError(f"{path}: --tools takes FILE.py with functions, or FILE.json with schemas; rename it")


def _read_functions(path: Path) -> Toolbox:
    from ...runtime.chat.tool_loop import function_schemas

    try:
        names = runpy.run_path(str(path), run_name=MODULE)
    except Exception as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(path)), None
        )
        line = error.lineno if isinstance(error, SyntaxError) else line
        where = f"{path}: line {line}" if line else str(path)
        raise UsageError(f"{where}: {type(error).__name__}: {error}; fix the file") from None
    functions = {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value) and value.__module__ == MODULE and not name.startswith("_")
    }
    if not functions:
        raise UsageError(f"{path} has no functions; define one, with type hints and a docstring")
    try:
        return Toolbox(function_schemas(functions), functions)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _read_schemas(path: Path) -> Toolbox:
    from ...files.chat.tool_schema import function_of

    try:
        found = read_json(path)
    except ValueError as error:
        raise UsageError(f"{error}; fix the file") from None
    schemas = found if isinstance(found, list) else [found]
    if not schemas or not all(isinstance(one, dict) for one in schemas):
        raise UsageError(f"{path}: expected a JSON schema or a list of them; fix the file")
    try:
        for one in schemas:
            function_of(one)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Toolbox(schemas)
