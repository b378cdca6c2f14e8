"""The part of ONNX Runtime's C interface that native/ort/ort_abi.h declares is that of ONNX Runtime.

ort_slots.json has the indices of the functions that are called, from onnxruntime_c_api.h of the version in it. Where a
header is at hand (Debian's libonnxruntime-dev installs one; ONNXRUNTIME_C_API_H names another) it is compared too.
"""

import ctypes
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

OURS = Path(__file__).parents[4] / "runtime" / "kernels" / "native" / "ort" / "ort_abi.h"
RECORD = json.loads(Path(__file__).with_name("ort_slots.json").read_text())
HEADERS = ("/usr/include/onnxruntime/onnxruntime_c_api.h", "/usr/local/include/onnxruntime/onnxruntime_c_api.h")
INVALID_ARGUMENT = 2


def our_slots() -> dict[str, int]:
    return {name: int(index) for index, name in re.findall(r"^SLOT\((\d+), (\w+)\);", OURS.read_text(), re.MULTILINE)}


def members(text: str, struct: str) -> list[str]:
    """Return the members of a struct of C that are functions, in their order, named as in ONNX Runtime's header."""
    body = text[re.search(rf"^struct {struct} {{$", text, re.MULTILINE).end() :]  # type: ignore[union-attr]
    body = re.sub(r"/\*.*?\*/|//[^\n]*|^#[^\n]*", "", body[: body.index("\n};")], flags=re.DOTALL | re.MULTILINE)
    found = []
    for declared in (" ".join(one.split()) for one in body.split(";")):
        if name := re.match(r"ORT_CLASS_RELEASE\((\w+)\)", declared):
            found.append(f"Release{name[1]}")
        elif name := re.match(r"ORT_API2_STATUS\((\w+)|ORT_API_T\([^,]+, (\w+)", declared):
            found.append(name[1] or name[2])
        elif name := re.search(r"\((?:\s*ORT_API_CALL)?\s*\*\s*(\w+)\s*\)", declared):
            found.append(name[1])
        elif declared and declared != "uint32_t version":
            pytest.fail(f"{struct}: {declared} cannot be read")
    return found


def test_the_indices_are_those_of_the_record() -> None:
    assert our_slots() == RECORD["slots"]
    assert members(OURS.read_text(), "OrtCustomOp") == RECORD["custom_op"]


def test_every_function_that_is_declared_has_its_index_checked() -> None:
    """The compiler checks the indices of SLOT lines."""
    body = OURS.read_text()
    body = body[body.index("struct OrtApi {") : body.index("#define SLOT")]
    assert set(re.findall(r"\(\*([A-Z]\w+)\)", body)) == set(our_slots())


def test_the_record_is_that_of_a_header() -> None:
    header = next(
        (Path(path) for path in (os.environ.get("ONNXRUNTIME_C_API_H"), *HEADERS) if path and Path(path).exists()), None
    )
    if header is None:
        pytest.skip("needs onnxruntime_c_api.h: name it in ONNXRUNTIME_C_API_H")
    text = header.read_text()
    functions = members(text, "OrtApi")
    assert {name: functions.index(name) for name in RECORD["slots"]} == RECORD["slots"]
    custom_op = members(text, "OrtCustomOp")
    shared = min(len(custom_op), len(RECORD["custom_op"]))
    assert custom_op[:shared] == RECORD["custom_op"][:shared]
    version = re.search(r"^#define ORT_API_VERSION (\d+)$", text, re.MULTILINE)
    assert version is not None
    assert int(version[1]) >= our_version()


def our_version() -> int:
    found = re.search(r"^#define ORT_API_VERSION (\d+)$", OURS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_the_installed_onnx_runtime_has_the_version_and_the_functions() -> None:
    """Call what needs no session; the operators' tests call the others."""
    api = installed_api(our_version())
    created = function(api, "CreateStatus", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(INVALID_ARGUMENT, b"why")
    assert function(api, "GetErrorMessage", ctypes.c_char_p, ctypes.c_void_p)(created) == b"why"
    function(api, "ReleaseStatus", None, ctypes.c_void_p)(created)
    domain = ctypes.c_void_p()
    pointer = ctypes.POINTER(ctypes.c_void_p)
    status = function(api, "CreateCustomOpDomain", ctypes.c_void_p, ctypes.c_char_p, pointer)(b"test", domain)
    assert status is None
    assert domain.value


def function(api: Any, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.CFUNCTYPE(result, *arguments)(api[our_slots()[name]])


def installed_api(version: int) -> Any:
    """Return the table of functions, as pointers."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    for path in (*folder.glob("onnxruntime_pybind11_state*"), *folder.glob("*onnxruntime.*")):
        try:
            base = ctypes.CDLL(str(path)).OrtGetApiBase
        except (OSError, AttributeError):
            continue
        base.restype = ctypes.POINTER(ctypes.c_void_p * 2)
        get_api, get_version = base().contents
        assert ctypes.CFUNCTYPE(ctypes.c_char_p)(get_version)().decode() == onnxruntime.__version__
        table = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)(get_api)(version)
        assert table, f"ONNX Runtime {onnxruntime.__version__} has no API version {version}"
        return table
    pytest.skip("onnxruntime's libraries do not export OrtGetApiBase")
