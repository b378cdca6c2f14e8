"""Export one of intaglio's variants in a process of its own, so that its time and memory can be measured.

    python -m intaglio.benchmarks.artifacts.export_variant CHECKPOINT OUT '{"precision": "int4"}'

The options are those of ``export`` (precision, target) and the fields of ``QuantizeOptions``.
"""

import json
import sys
from typing import Any


def main(checkpoint: str, out: str, options: str) -> None:
    from intaglio.exporter import QuantizeOptions, export

    fields: dict[str, Any] = json.loads(options)
    chosen = {name: fields.pop(name) for name in ("precision", "target") if name in fields}
    quantizing = chosen["precision"] in ("int4", "int8")
    export(checkpoint, out, force=True, options=QuantizeOptions(**fields) if quantizing else None, **chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])
