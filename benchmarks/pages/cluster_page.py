"""The block of serving.md about replicas on Ray."""

from pathlib import Path

from ..harness.cluster.arrangements import ARRANGEMENTS, ONE, RANDOM, SERVER, TWO
from ..harness.cluster.run import SECTION
from ..harness.records import Records
from .generated import fill
from .numbers import markdown, middle, shown
from .runtime_page import processor


def body(records: Records, clients: int, threads: int) -> str:
    """Return the tables of what was measured."""
    rounds = len({record["round"] for record in records.of(SECTION)})
    return "\n\n".join(
        [
            f"- {processor()}, {threads} threads for each arrangement\n"
            f"- {rounds} round{'s' * (rounds != 1)}: medians over them",
            "### What Ray costs: one replica beside the same server without Ray",
            _costs(records),
            f"### One replica with {threads} threads, and two with {threads // 2}: {clients} clients",
            _replicas(records),
            f"### Conversations of {clients} users on two replicas",
            _conversations(records),
        ]
    )


def _costs(records: Records) -> str:
    columns = {
        "request of 1 token p50, ms": ("tiny", "end_to_end_seconds.p50", 1e3, ",.1f"),
        "p99, ms": ("tiny", "end_to_end_seconds.p99", 1e3, ",.1f"),
        "gap p50 of 1 client, ms": ("one", "token_gap_seconds.p50", 1e3, ",.1f"),
        "gap p99, ms": ("one", "token_gap_seconds.p99", 1e3, ",.1f"),
        "tokens/s of 1 client": ("one", "output_tokens_per_second", 1.0, ".1f"),
        "tokens/s of all clients": ("many", "output_tokens_per_second", 1.0, ".1f"),
        "memory beside the model, MB": ("many", "memory.others", 1.0, ",.0f"),
    }
    return _table(records, (SERVER, ONE), columns)


def _replicas(records: Records) -> str:
    columns = {
        "tokens/s": ("many", "output_tokens_per_second", 1.0, ".1f"),
        "first token p50, ms": ("many", "first_token_seconds.p50", 1e3, ",.0f"),
        "gap p50, ms": ("many", "token_gap_seconds.p50", 1e3, ",.1f"),
        "gap p99, ms": ("many", "token_gap_seconds.p99", 1e3, ",.1f"),
        "memory of the replicas, MB": ("many", "memory.models", 1.0, ",.0f"),
    }
    return _table(records, (ONE, TWO), columns)


def _conversations(records: Records) -> str:
    columns = {
        "prompt tokens from the cache, %": ("conversations", "cached_share", 100.0, ".0f"),
        "first token p50, ms": ("conversations", "first_token_seconds.p50", 1e3, ",.0f"),
        "first token p99, ms": ("conversations", "first_token_seconds.p99", 1e3, ",.0f"),
        "tokens/s": ("conversations", "output_tokens_per_second", 1.0, ".1f"),
    }
    return _table(records, (TWO, RANDOM), columns)


def _table(records: Records, names: tuple[str, ...], columns: dict[str, tuple[str, str, float, str]]) -> str:
    rows = []
    for name in ARRANGEMENTS:
        if name in names and records.of(SECTION, name):
            cells = [
                shown(middle(records.of(SECTION, name, case), path), form, factor)
                for case, path, factor, form in columns.values()
            ]
            rows.append([name, *cells])
    return markdown(["arrangement", *columns], rows)


def write(folder: Path, text: str) -> None:
    """Fill the generated block of ``folder/serving.md``."""
    fill(folder / "serving.md", "Serving", "cluster.py", text)
