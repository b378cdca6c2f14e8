"""One int4 artifact for each device, made once."""

from pathlib import Path

import pytest
from intaglio.artifact import Manifest
from intaglio.devices.presets import DEVICES
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.tests.tiny import config, write

Made = dict[str, tuple[Path, Manifest]]


@pytest.fixture(scope="session")
def device_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with biases."""
    return write(tmp_path_factory.mktemp("source"), config("qwen2"))


@pytest.fixture(scope="session")
def made(device_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An int4 artifact for each device, and one for none ("cpu")."""
    root = tmp_path_factory.mktemp("made")
    found: Made = {}
    for device in (None, *DEVICES):
        out = root / (device or "cpu")
        options = QuantizeOptions(method="rtn")
        found[device or "cpu"] = (out, quantize(device_source, out, options=options, device=device))
    return found
