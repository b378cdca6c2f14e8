"""The local tasks, run by lm-evaluation-harness over an artifact."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import DependencyError
from .functions import MOST_TOKENS, STOPS, passes, problems
from .next_sentence import next_sentences

NEXT_SENTENCE, FUNCTIONS = "next_sentence", "functions"


def evaluate(artifact: Path, text: Path, count: int, threads: int, scratch: Path) -> Mapping[str, float]:
    """Return the accuracy of both tasks, and the standard error of each (``next_sentence error``).

    Args:
        text: the text whose sentences are to be continued.
        count: the number of choices.
        scratch: a folder for the tasks' data.

    Raises:
        DependencyError: lm-eval is not installed.
        ValueError: the text is too short.
    """
    from ....runtime.lm_eval import ArtifactLM

    try:
        from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
        from lm_eval.api.task import ConfigurableTask  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError(f"the tasks need lm-eval ({error}); pip install 'intaglio[eval]'") from None
    scratch.mkdir(parents=True, exist_ok=True)
    data = {
        NEXT_SENTENCE: next_sentences(text.read_text(encoding="utf-8"), count),
        FUNCTIONS: [{**one, "tests": json.dumps(one["tests"])} for one in problems()],
    }
    tasks = []
    for name, items in data.items():
        file = scratch / f"{name}.jsonl"
        file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        tasks.append(ConfigurableTask(config=_config(name, file)))
    model = ArtifactLM(str(artifact), threads=threads)
    results = simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0, log_samples=False)["results"]
    found = {name: float(results[name][f"{metric},none"]) for name, metric in _METRICS.items()}
    errors = {f"{name} error": (share * (1 - share) / len(data[name])) ** 0.5 for name, share in found.items()}
    return found | errors


_METRICS = {NEXT_SENTENCE: "acc_norm", FUNCTIONS: "pass_at_1"}
"""The metric of each task; ``acc_norm`` compares log-probabilities for each byte of a choice."""


def _config(name: str, file: Path) -> dict[str, Any]:
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(file.parent / "cache")},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": 1},
    }
    if name == NEXT_SENTENCE:
        return common | {
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{label}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}],
        }
    return common | {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "",
        "generation_kwargs": {"until": list(STOPS), "max_gen_toks": MOST_TOKENS, "do_sample": False},
        "process_results": _pass_at_1,
        "metric_list": [{"metric": pass_at_1, "aggregation": "mean", "higher_is_better": True}],
    }


def pass_at_1(*_: Any, **__: Any) -> float:
    """Name the metric, which ``_pass_at_1`` computes from an item."""
    raise AssertionError("the harness takes the results of the items")


def _pass_at_1(item: dict[str, Any], completions: list[str]) -> dict[str, float]:
    return {"pass_at_1": float(passes(item["prompt"], completions[0], json.loads(item["tests"])))}
