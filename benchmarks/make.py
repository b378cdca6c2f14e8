"""One of our artifacts, in a process of its own: python make.py CHECKPOINT OUT '{"precision": "int4"}'

The options are those of ``export`` (precision, target) and the fields of ``QuantizeOptions``.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(checkpoint: str, out: str, options: str) -> None:
    from intaglio.exporter import QuantizeOptions, export

    given: dict[str, Any] = json.loads(options)
    how = {name: given.pop(name) for name in ("precision", "target") if name in given}
    if "calibration" in given:
        given["calibration"] = Path(given["calibration"])
    quantizing = how["precision"] in ("int4", "int8")
    export(checkpoint, out, force=True, options=QuantizeOptions(**given) if quantizing else None, **how)


if __name__ == "__main__":
    main(*sys.argv[1:])
