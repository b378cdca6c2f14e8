"""A process that judges cases one after the other and tells what it does, so that another sees where it ends.

python -m intaglio.tests.runtime.kernels.fuzz.child MODE SEED FIRST LAST
"""

import json
import os
import resource
import sys

from .judge import draw, judge

ADDRESS_SPACE = 12 << 30  # bytes; a sanitizer reserves more and has its own limits

ENDS_AT = "INTAGLIO_FUZZ_ENDS_AT"
"""The number of a case that ends its process, which a test asks for."""


def main(mode: str, seed: int, first: int, last: int) -> None:
    """Judge cases ``first`` .. ``last``; write one line of JSON for each step."""
    if "LD_PRELOAD" not in os.environ:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for number in range(first, last):

        def entered(whose: str, number: int = number) -> None:
            _tell(number=number, runs=whose)

        entered("the fuzzer")
        if os.environ.get(ENDS_AT) == str(number):
            os.abort()
        outcome, detail = judge(mode, seed, number, entered)
        _tell(number=number, outcome=outcome, detail=detail, case=draw(mode, seed, number).describe())


def _tell(**said: object) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:5]))
