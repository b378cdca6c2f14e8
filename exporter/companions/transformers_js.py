"""What transformers.js needs to find the graph and its weights: ``transformers.js_config`` in config.json.

transformers.js 4 reads ``dtype`` and ``use_external_data_format`` (src/configs.js, TransformersJSConfig), and version 3
also ``kv_cache_dtype``. Everything else in the file stays as the checkpoint has it, which transformers reads as before,
but the settings of quantized weights: they are of the checkpoint's files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...artifact import CacheDtype, Precision, Task
from ...contract import has_cache
from ...devices.libraries import JS_DTYPES
from ...errors import CheckpointError
from ...files.json_file import read_object

FILE = "config.json"
KEY = "transformers.js_config"

HALF_CACHES = {JS_DTYPES["fp16", "float16"]: "float16", JS_DTYPES["int4", "float16"]: "float16"}
"""The element type of the KV cache where it is not float32, which version 3 cannot see in the graph."""

OF_WEIGHTS = ("quantization_config", "quantization", "compression_config")
"""The keys that say how a checkpoint's weights are quantized, which an artifact's are not stored as."""

OF_FILES = ("dtype", "use_external_data_format", "kv_cache_dtype")
"""The keys that say which files there are and how they are stored."""


def config_text(
    folder: Path,
    task: Task,
    precision: Precision,
    cache_dtype: CacheDtype,
    changed: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the text of the artifact's config.json: the one in ``folder``, and what transformers.js needs.

    What the checkpoint has under the key was written for other files: what it says of devices and dimensions stays, and
    what it says of files is replaced.

    Args:
        changed: the keys that adapters change.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    try:
        values = read_object(folder / FILE)
    except ValueError as error:
        raise CheckpointError(f"{error}; correct the checkpoint's file") from None
    values = {key: value for key, value in {**values, **changed}.items() if key not in OF_WEIGHTS}
    found = values.get(KEY)
    given: dict[str, Any] = dict(found) if isinstance(found, dict) else {}
    devices = given.get("device_config")
    if isinstance(devices, dict):
        given["device_config"] = {device: _without_files(options) for device, options in devices.items()}
    own: dict[str, Any] = {"use_external_data_format": True}
    if (precision, cache_dtype) in JS_DTYPES:
        own = {"dtype": JS_DTYPES[precision, cache_dtype], **own}
    if has_cache(task):
        own["kv_cache_dtype"] = HALF_CACHES
    return json.dumps(values | {KEY: _without_files(given) | own}, indent=2, ensure_ascii=False) + "\n"


def _without_files(options: Any) -> Any:
    """Return a device's options without those that name or describe files."""
    if not isinstance(options, dict):
        return options
    return {key: value for key, value in options.items() if key not in OF_FILES}
