"""Evaluate an artifact in the process and through a server; run by the Python of an environment with lm-eval.

    python lm_eval_program.py ARTIFACT URL TASKS OUT

TASKS is a folder of tasks; OUT receives the results and the model's answers to each sample, as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(artifact: str, url: str, tasks: str, out: str) -> None:
    """Run the tasks with both models."""
    import intaglio.runtime.lm_eval  # noqa: F401  # registers the model
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    served = f"model=served,base_url={url}/v1/completions,max_length=128,"
    models = {
        "process": ("intaglio", f"pretrained={artifact},threads=1,max_length=127"),
        "served": ("local-completions", f"{served}tokenizer_backend=huggingface,tokenizer={artifact},num_concurrent=2"),
        "batches": ("local-completions", f"{served}tokenizer_backend=huggingface,tokenizer={artifact},batch_size=4"),
        "remote": ("local-completions", f"{served}tokenizer_backend=remote"),
    }
    found: dict[str, Any] = {}
    for name, (model, arguments) in models.items():
        names = sorted(file.stem for file in Path(tasks).glob("*.yaml"))
        manager = TaskManager(include_path=tasks, include_defaults=False)
        results = simple_evaluate(
            model=model, model_args=arguments, tasks=names, task_manager=manager, device="cpu", bootstrap_iters=0
        )
        samples = {task: [one["resps"] for one in rows] for task, rows in results["samples"].items()}
        found[name] = {"results": results["results"], "samples": samples}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
