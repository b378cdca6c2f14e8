"""Measurements of each section, rounds, jobs, and the interpreters that run them."""

import json
import sys
from pathlib import Path

import click
import pytest
from intaglio.benchmarks.artifacts import environments
from intaglio.benchmarks.artifacts.sizes import kv_bytes, step_bytes
from intaglio.benchmarks.artifacts.variants import ALL, DEFAULT
from intaglio.benchmarks.harness import rounds
from intaglio.benchmarks.harness.job import Job, varied
from intaglio.benchmarks.harness.measurements import SECTIONS, Measurement, measurements, rounds_of
from intaglio.benchmarks.harness.records import Record, Records


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = {"max_position_embeddings": 4096, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    return tmp_path


def planned(section: str, checkpoint: Path, names: tuple[str, ...] = DEFAULT) -> list[Measurement]:
    return measurements(section, [ALL[name] for name in names], checkpoint, Path("dev.tsv"), Path("cache"))


def test_speed_measures_the_machine_too_and_other_sections_choose_variants(checkpoint: Path) -> None:
    found = [one.key(0) for one in planned("speed", checkpoint)]
    assert [key.name for key in found] == ["machine", *(name for name in DEFAULT if not ALL[name].instructions)]
    assert found[0].section == "bandwidth"
    assert all(one.settings["long"] == [512, 2048] for one in planned("speed", checkpoint)[1:])
    short = measurements("limited", [ALL["int4-avx2"]], checkpoint, Path("dev.tsv"), Path("cache"), longest=512)
    assert [one.settings["long"] for one in short] == [[512]]
    assert {one.variant.name for one in planned("share", checkpoint)} == {"int4"}
    assert "transformers-fp32" not in {one.variant.name for one in planned("quality", checkpoint)}


def test_variants_with_limited_instructions_have_a_section_of_their_own(checkpoint: Path) -> None:
    found = planned("limited", checkpoint)
    assert {one.variant.name for one in found} >= {"int4-avx2", "ik-llama-q4-0-avx2", "llama-q4-0-avx2"}
    assert {one.variant.instructions for one in found} == {"AVX2"}
    own = next(one.variant for one in found if one.variant.tool == "intaglio")
    assert own.variables == {"INTAGLIO_KERNELS": "avx2"}
    assert own.artifact == "int4"


def test_contexts_are_limited_by_the_models_positions(checkpoint: Path) -> None:
    assert [one.case for one in planned("growth", checkpoint)] == ["512", "4063", "4063 int8", "series"]


def test_classifiers_are_variants_and_transformers_runs_in_both_orders(checkpoint: Path) -> None:
    found = [
        (one.variant.name, one.case) for one in planned("classification", checkpoint, ("fp32", "transformers-fp32"))
    ]
    assert found == [("fp32-sst2", ""), ("transformers-fp32-sst2", ""), ("transformers-fp32-sst2", "sorted")]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_measurement_of_a_round_has_its_own_key(section: str, checkpoint: Path) -> None:
    keys = [one.key(0) for one in planned(section, checkpoint)]
    assert keys
    assert len(set(keys)) == len(keys)


def test_sections_that_take_minutes_run_once() -> None:
    assert (rounds_of("speed", 5), rounds_of("growth", 5), rounds_of("growth", 0)) == (5, 1, 0)


class FakeProcesses:
    """Rounds without processes; ``ran`` lists the variants that ran, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str = "") -> None:
        self.ran: list[str] = []
        self.records = Records(tmp_path / "records.jsonl")

        def measured(python: str, job: Job) -> Record:
            if job.artifact == failing:
                raise rounds.FailedError("Traceback\nValueError: it broke")
            self.ran.append(job.artifact)
            return {"decode": 1.0}

        monkeypatch.setattr(rounds, "run", measured)
        monkeypatch.setattr(rounds, "fill_page_cache", lambda path: None)

    def rounds(self, names: str, count: int) -> list[str]:
        def jobs(one: Measurement) -> tuple[str, Job]:
            return "python", Job(one.section, one.variant.tool, one.variant.name, "", "", 1, 1)

        return rounds.rounds([Measurement("speed", ALL[name]) for name in names.split()], count, self.records, jobs)


def test_another_variant_begins_each_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processes = FakeProcesses(monkeypatch, tmp_path)
    assert processes.rounds("int4 fp32 int8", 2) == []
    assert processes.ran == ["int4", "fp32", "int8", "fp32", "int8", "int4"]


def test_an_interrupted_run_continues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processes = FakeProcesses(monkeypatch, tmp_path)
    processes.rounds("int4 fp32", 1)
    processes.rounds("int4 fp32", 2)
    assert processes.ran == ["int4", "fp32", "fp32", "int4"]


def test_a_failure_is_named_once_and_the_others_continue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = FakeProcesses(monkeypatch, tmp_path, failing="fp32")
    assert processes.rounds("int4 fp32", 3) == ["speed fp32: ValueError: it broke"]
    assert processes.ran == ["int4"] * 3
    assert capsys.readouterr().err == "speed fp32: Traceback\nValueError: it broke\n"


def test_a_failed_process_reports_the_end_of_its_output(tmp_path: Path) -> None:
    job = Job("speed", "no such tool", "", "", str(tmp_path), 1, 1)
    with pytest.raises(rounds.FailedError, match="no such tool"):
        rounds.run(sys.executable, job)


def test_prompts_differ_in_their_first_token_only() -> None:
    prompts = [varied([7, 8, 9], number) for number in range(50)]
    assert len({prompt[0] for prompt in prompts}) == 50
    assert all(prompt[1:] == [8, 9] for prompt in prompts)


def test_a_prompt_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('{"long": [1, 2, 3]}')
    job = Job.from_json(Job("speed", "intaglio", "", "", str(path), 1, 1).to_json())
    assert job.prompt("long", 2) == [1, 2]
    with pytest.raises(SystemExit, match="'long' has 3 tokens, the section needs 4"):
        job.prompt("long", 4)


def test_bytes_of_the_kv_cache_and_of_a_step_of_transformers(checkpoint: Path) -> None:
    assert kv_bytes(checkpoint, 10) == 2 * 2 * 2 * 16 * 4 * 10
    header = {"__metadata__": {}, "model.embed_tokens.weight": {"shape": [10, 4]}, "a": {"shape": [3]}}
    for head in ({}, {"lm_head.weight": {"shape": [10, 4]}}):  # an embedding beside an LM head is not read
        text = json.dumps(header | head).encode()
        (checkpoint / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        assert step_bytes(ALL["transformers-fp32"], checkpoint) == 4 * 43


def test_chosen_interpreters_are_used_and_unknown_tools_refused(tmp_path: Path) -> None:
    found = environments.interpreters(["intaglio", "OpenVINO"], tmp_path, {"OpenVINO": "/there/python"})
    assert found["OpenVINO"] == "/there/python"
    assert set(found) == {"intaglio", "OpenVINO"}
    (tmp_path / "llama.cpp").symlink_to(tmp_path / "elsewhere")
    linked = environments.interpreters(["llama.cpp"], tmp_path, {})
    assert linked["llama.cpp"] == str(tmp_path / "llama.cpp" / "bin" / "python")
    with pytest.raises(click.UsageError, match=r"--python vllm=\.\.\.: unknown tool; use one of onnxruntime-genai"):
        environments.interpreters([], tmp_path, {"vllm": "python"})
