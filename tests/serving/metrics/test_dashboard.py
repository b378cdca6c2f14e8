"""The dashboard asks for metrics that the server has."""

import json
import re
from pathlib import Path

from intaglio.serving.metrics.metrics import Metrics

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana.json"


def test_every_query_names_a_metric_and_labels_of_the_server() -> None:
    metrics = Metrics(["m"], dict)
    metrics.requests.refused("m", "queue_full")
    metrics.http.requests.labels("/health", "GET", "200").inc()
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    labels = {sample.name: {*sample.labels, "job", "le"} for sample in samples}
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 20
    for query in queries:
        names = re.findall(r"\b((?:vllm|intaglio):\w+|process_\w+)", query)
        assert names, query
        for name in names:
            assert name in labels, query
            assert set(re.findall(r"(\w+)=~", query)) <= labels[name], query
            assert set(re.findall(r"by \(([^)]+)\)", query)) <= {"le", "finished_reason", "reason", "path, status"}
