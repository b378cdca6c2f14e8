"""The benchmark of replicas on Ray: its conversations, its declarations, and its tables."""

from itertools import pairwise
from pathlib import Path

from intaglio.benchmarks.harness.cluster.arrangements import ONE, RANDOM, SERVER, TWO, declaration
from intaglio.benchmarks.harness.cluster.cells import TURNS, Conversations, cells
from intaglio.benchmarks.harness.cluster.run import SECTION
from intaglio.benchmarks.harness.records import Key, Records
from intaglio.benchmarks.harness.serving.servers import Room
from intaglio.benchmarks.pages import cluster_page
from intaglio.serving.cluster.config import ClusterConfig


def test_each_turn_of_a_conversation_continues_the_one_before() -> None:
    made = Conversations(2)
    turns = [made.messages(2 * turn) for turn in range(TURNS)]
    for before, after in pairwise(turns):
        assert after[: len(before)] == before
        assert len(after) == len(before) + 2
    others = {made.messages(number)[0]["content"] for number in (0, 1, 2 * TURNS, 2 * TURNS + 1)}
    assert len(others) == 4  # each conversation has a beginning of its own, and another one follows the last turn


def test_the_arrangements_share_slots_and_threads() -> None:
    for name, replicas in ((ONE, 1), (TWO, 2), (RANDOM, 2)):
        config = ClusterConfig.model_validate(declaration(name, Path("model"), Room(8, 2048, 2), Path("weights")))
        assert (config.replicas, config.affinity) == (replicas, name != RANDOM)
        assert config.replicas * config.settings.slots == 8
        assert config.replicas * int(config.cpus) == 2


def test_the_tables_have_a_row_for_each_arrangement(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    spread = {"p50": 0.25, "p99": 0.5}
    for cell in cells(1, 8):
        for number, name in enumerate(cell.arrangements):
            found = {
                "output_tokens_per_second": 10.0 + number,
                "first_token_seconds": spread,
                "token_gap_seconds": spread,
                "end_to_end_seconds": spread,
                "cached_share": 0.75,
                "memory": {"models": 700.0, "others": 40.0},
            }
            records.add(Key(SECTION, name, cell.name, 0), found)
    text = cluster_page.body(records, 8, 2)
    assert f"| {SERVER} | 250.0 | 500.0 | 250.0 | 500.0 | 10.0 | 10.0 | 40 |" in text
    assert f"| {TWO} | 12.0 | 250 | 250.0 | 500.0 | 700 |" in text
    assert f"| {RANDOM} | 75 | 250 | 500 | 11.0 |" in text
