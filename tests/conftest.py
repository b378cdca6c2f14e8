"""Tracing a model takes seconds, and most tests export one that others exported before: each is traced once.

torch builds its registry of operators anew for every trace; the tests share one. A test marked ``traces_anew`` traces
for itself: it asks whether two traces are alike, or changes what is traced.

A test marked ``quick_one_in(n)`` has parameters that hardly depend on each other: of their combinations one in n is
quick, so that every value is quick in some, and the others are slow.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

TRACE = "intaglio.exporter.trace"
_traced: dict[str, Any] = {}
_originals: list[Callable[..., Any]] = []


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m excludes
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    axes: defaultdict[tuple[str, int], dict[str, int]] = defaultdict(dict)  # (test, axis) → value's name → its number
    for item in items:
        mark = item.get_closest_marker("quick_one_in")
        if mark is None:
            continue
        names: list[str] = item.callspec._idlist  # type: ignore[attr-defined]  # one name for each parametrization
        test = item.nodeid.partition("[")[0]
        numbers = [axes[test, axis].setdefault(name, len(axes[test, axis])) for axis, name in enumerate(names)]
        if sum(numbers) % mark.args[0]:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the test, which may export
def pytest_runtest_setup(item: pytest.Item) -> None:
    module = sys.modules.get(TRACE)  # None until a test imports it; then there is nothing to patch yet
    if module is None:
        return
    if not _originals:
        _originals.append(module._export)
        _share_the_registry()
    anew = item.get_closest_marker("traces_anew") is not None
    module._export = _originals[0] if anew else _export_once  # type: ignore[attr-defined]


def _export_once(*arguments: Any) -> Any:
    key = repr(arguments)
    if key not in _traced:
        _traced[key] = _originals[0](*arguments)
    return _traced[key].clone()


def _share_the_registry() -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]
