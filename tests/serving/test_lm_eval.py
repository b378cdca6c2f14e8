"""lm-evaluation-harness through the server's ``/v1/completions`` gives what the adapter gives in the process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from intaglio.scripts.interop import environments
from intaglio.tests.serving.live import live_server

PROGRAM = Path(__file__).with_name("lm_eval_program.py")
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
{more}
"""
TASKS: dict[str, tuple[str, str]] = {
    "choices": (
        "multiple_choice",
        """
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    ),
    "texts": (
        "loglikelihood_rolling",
        """
doc_to_text: ""
doc_to_target: "{{question}} {{choices[0]}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    ),
    "answers": (
        "generate_until",
        """
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
    ),
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder of tasks over twelve questions."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {"question": f"In {year}, the {what}", "choices": ["sailed to the city", "was built", "lost"], "answer": 0}
        for year in (1812, 1890, 1942)
        for what in ("ship", "company", "army", "king")
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, (kind, more) in TASKS.items():
        text = TASK.format(name=name, data=data, kind=kind, more=more)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2", "exaone4"])
def test_the_harness_gives_the_same_through_the_server(
    artifacts: dict[str, Path], tasks: Path, tmp_path: Path, name: str
) -> None:
    """With its own tokenizer, one text or several in a call; and with the server's tokenizer."""
    try:
        python = environments.python_environment("lm_eval")
    except environments.UnavailableError as error:
        pytest.skip(str(error))
    out = tmp_path / "out.json"
    with live_server({"served": artifacts[name]}) as url:
        command = [str(python), "-P", str(PROGRAM), str(artifacts[name]), url, str(tasks), str(out)]
        variables = {**environments.variables(), "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text(encoding="utf-8"))
    expected = found.pop("process")
    assert expected["results"].keys() == TASKS.keys()
    for one in found.values():
        for task in TASKS:
            assert numbers(one["results"][task]) == pytest.approx(numbers(expected["results"][task]), rel=1e-4)
            assert flat(one["samples"][task]) == [
                pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
                for value in flat(expected["samples"][task])
            ]
    assert len({value for value in flat(expected["samples"]["choices"]) if isinstance(value, float)}) > 20


def numbers(results: dict[str, Any]) -> dict[str, float]:
    """Return the metrics among a task's results."""
    return {name: value for name, value in results.items() if isinstance(value, float)}


def flat(values: Any) -> list[Any]:
    """Return the leaves of nested lists."""
    return [leaf for value in values for leaf in flat(value)] if isinstance(values, list) else [values]
