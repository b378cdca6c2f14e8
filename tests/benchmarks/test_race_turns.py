"""Who takes which turns, and that everyone begins a round in his turn."""

import json
import sys
from pathlib import Path

import click
import pytest
from race import environments, run
from race.contenders import ALL, DEFAULT, kv_bytes, step_bytes
from race.job import Job, varied
from race.records import Record, Records
from race.turns import SECTIONS, Turn, rounds_of, turns


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = {"max_position_embeddings": 4096, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    return tmp_path


def planned(section: str, checkpoint: Path, names: tuple[str, ...] = DEFAULT) -> list[Turn]:
    return turns(section, [ALL[name] for name in names], checkpoint, Path("dev.tsv"), Path("cache"))


def test_speed_measures_the_machine_and_everyone_else_what_he_can(checkpoint: Path) -> None:
    found = [turn.key(0) for turn in planned("speed", checkpoint)]
    assert [key.name for key in found] == ["machine", *DEFAULT]
    assert found[0].section == "bandwidth"
    assert all(turn.settings["long"] == [512, 2048] for turn in planned("speed", checkpoint)[1:])
    assert {turn.row.name for turn in planned("share", checkpoint)} == {"int4"}
    assert "transformers-fp32" not in {turn.row.name for turn in planned("quality", checkpoint)}


def test_contexts_end_with_the_models_positions(checkpoint: Path) -> None:
    assert [turn.case for turn in planned("growth", checkpoint)] == ["512", "4063", "4063 int8", "series"]


def test_classifiers_are_rows_of_their_own_and_transformers_runs_in_both_orders(checkpoint: Path) -> None:
    found = [
        (turn.row.name, turn.case) for turn in planned("classification", checkpoint, ("fp32", "transformers-fp32"))
    ]
    assert found == [("fp32-sst2", ""), ("transformers-fp32-sst2", ""), ("transformers-fp32-sst2", "sorted")]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_turn_of_a_round_has_a_key_of_its_own(section: str, checkpoint: Path) -> None:
    keys = [turn.key(0) for turn in planned(section, checkpoint)]
    assert keys
    assert len(set(keys)) == len(keys)


def test_sections_that_take_minutes_run_once() -> None:
    assert (rounds_of("speed", 5), rounds_of("growth", 5), rounds_of("growth", 0)) == (5, 1, 0)


class Stage:
    """Rounds with a stand-in for the processes; ``ran`` is who ran, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str = "") -> None:
        self.ran: list[str] = []
        self.records = Records(tmp_path / "records.jsonl")

        def measured(python: str, job: Job) -> Record:
            if job.artifact == failing:
                raise run.FailedError("Traceback\nValueError: it broke")
            self.ran.append(job.artifact)
            return {"decode": 1.0}

        monkeypatch.setattr(run, "run", measured)
        monkeypatch.setattr(run, "warm", lambda path: None)

    def rounds(self, names: str, count: int) -> list[str]:
        def jobs(turn: Turn) -> tuple[str, Job]:
            return "python", Job(turn.section, turn.row.tool, turn.row.name, "", "", 1, 1)

        return run.rounds([Turn("speed", ALL[name]) for name in names.split()], count, self.records, jobs)


def test_rounds_interleave_and_another_begins_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, tmp_path)
    assert stage.rounds("int4 fp32 int8", 2) == []
    assert stage.ran == ["int4", "fp32", "int8", "fp32", "int8", "int4"]


def test_a_run_that_was_broken_off_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, tmp_path)
    stage.rounds("int4 fp32", 1)
    stage.rounds("int4 fp32", 2)
    assert stage.ran == ["int4", "fp32", "fp32", "int4"]


def test_who_fails_is_named_once_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(monkeypatch, tmp_path, failing="fp32")
    assert stage.rounds("int4 fp32", 3) == ["speed fp32: ValueError: it broke"]
    assert stage.ran == ["int4"] * 3
    assert capsys.readouterr().err == "speed fp32: Traceback\nValueError: it broke\n"


def test_a_process_that_fails_gives_its_last_words(tmp_path: Path) -> None:
    job = Job("speed", "no such tool", "", "", str(tmp_path), 1, 1)
    with pytest.raises(run.FailedError, match="no such tool"):
        run.run(sys.executable, job)


def test_prompts_differ_in_their_first_token_only() -> None:
    prompts = [varied([7, 8, 9], number) for number in range(50)]
    assert len({prompt[0] for prompt in prompts}) == 50
    assert all(prompt[1:] == [8, 9] for prompt in prompts)


def test_a_prompt_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('{"long": [1, 2, 3]}')
    job = Job.from_json(Job("speed", "intaglio", "", "", str(path), 1, 1).to_json())
    assert job.prompt("long", 2) == [1, 2]
    with pytest.raises(SystemExit, match="'long' has 3 tokens, 4 are asked for"):
        job.prompt("long", 4)


def test_bytes_of_the_cache_and_of_a_step_of_transformers(checkpoint: Path) -> None:
    assert kv_bytes(checkpoint, 10) == 2 * 2 * 2 * 16 * 4 * 10
    header = {"__metadata__": {}, "model.embed_tokens.weight": {"shape": [10, 4]}, "a": {"shape": [3]}}
    for head in ({}, {"lm_head.weight": {"shape": [10, 4]}}):  # a table that is the head too is read once
        text = json.dumps(header | head).encode()
        (checkpoint / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        assert step_bytes(ALL["transformers-fp32"], checkpoint) == 4 * 43


def test_interpreters_that_were_given_are_taken_and_unknown_tools_refused(tmp_path: Path) -> None:
    found = environments.interpreters(["intaglio", "OpenVINO"], tmp_path, {"OpenVINO": "/there/python"})
    assert found["OpenVINO"] == "/there/python"
    assert set(found) == {"intaglio", "OpenVINO"}
    (tmp_path / "llama.cpp").symlink_to(tmp_path / "elsewhere")
    linked = environments.interpreters(["llama.cpp"], tmp_path, {})
    assert linked["llama.cpp"] == str(tmp_path / "llama.cpp" / "bin" / "python")
    with pytest.raises(click.UsageError, match=r"--python vllm=\.\.\.: no such tool; known: onnxruntime-genai"):
        environments.interpreters([], tmp_path, {"vllm": "python"})
