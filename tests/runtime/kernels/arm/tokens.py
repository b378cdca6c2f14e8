"""Write as JSON what an artifact generates, greedily, with intaglio's kernels; run by both Pythons.

python -m intaglio.tests.runtime.kernels.arm.tokens ARTIFACT
"""

import json
import sys
from pathlib import Path
from typing import Any

from intaglio.runtime import TextGenerator, load

PROMPTS = ("The team", "Once there was a", "def add(a, b):\n    return")


def generated(artifact: Path) -> dict[str, Any]:
    """Return the operators that the kernels run, and tokens after each prompt, with a float and with an int8 cache."""
    told: dict[str, Any] = {}
    for cache in ("auto", "int8"):
        lm = load(artifact, kv_cache=cache)
        assert isinstance(lm, TextGenerator)
        told[cache] = {
            "operators": list(lm.session.intaglio_kernels),
            "texts": [list(lm.generate(prompt, max_new_tokens=24, temperature=0.0).token_ids) for prompt in PROMPTS],
        }
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(generated(Path(sys.argv[1]))))
