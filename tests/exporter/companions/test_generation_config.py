"""Settings of generation are checked before an export or a quantization works, and can be replaced or left out."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from intaglio.cli.main import cli
from intaglio.errors import CheckpointError, UnsupportedError, UsageError
from intaglio.exporter import export, quantize
from intaglio.tests import tiny
from intaglio.tests.runtime.fakes import text_generator

CONFIG = tiny.config("qwen2", num_hidden_layers=1, layer_types=["full_attention"])


def checkpoint(folder: Path, **settings: Any) -> Path:
    """Write a checkpoint with these generation settings; no file for none."""
    tiny.write(folder, CONFIG, tokenizer=True)
    (folder / "generation_config.json").unlink()
    if settings:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def refuse_work(*_: object) -> None:
    raise AssertionError("work began before the settings were checked")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance_scale": 1.5}, "guidance_scale is 1.5, which intaglio does not support; leave it out with "),
        ({"do_sample": True, "top_k": -1}, "top_k is -1, expected a whole number, 0 or more; leave it out with "),
        ({"do_sample": True, "num_beams": 3}, "num_beams is 3 with do_sample, which intaglio does not support"),
        ({"forced_eos_token_id": 288}, "forced_eos_token_id is 288, expected a token id or a list of them"),
        ({"no_repeat_ngram_size": -1, "penalty_alpha": 0.6}, "leave them out with --ignore-generation-key no_repeat_"),
    ],
)
def test_what_generation_cannot_use_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    source = checkpoint(tmp_path / "source", **settings)
    for name in ("Digest", "prepare"):
        monkeypatch.setattr(sys.modules["intaglio.exporter.export"], name, refuse_work)
    for make in (export, quantize):
        with pytest.raises(UnsupportedError) as error:
            make(source, tmp_path / "out")
        assert str(error.value).startswith(f"{source / 'generation_config.json'}: ")
        assert message in str(error.value)
        assert str(error.value).endswith("or give settings of your own with --generation-config FILE")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_a_greedy_choice_does_not_use_is_no_reason_to_refuse(tmp_path: Path) -> None:
    settings = {"top_k": -1, "top_p": 0, "eos_token_id": [2, 288], "suppress_tokens": [10**9], "length_penalty": "x"}
    source = checkpoint(tmp_path / "source", **settings)
    export(source, tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == (
        source / "generation_config.json"
    ).read_bytes()
    assert text_generator(tmp_path / "out").generate("stone", max_new_tokens=3).token_ids


def test_a_key_is_left_out(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", guidance_scale=2, max_new_tokens=4, eos_token_id=[])
    result = CliRunner().invoke(cli, ["export", str(source), str(tmp_path / "out"), "--no-parity"])
    assert result.exit_code == 2
    way = "--ignore-generation-key guidance_scale"
    assert way in result.output
    command = ["export", str(source), str(tmp_path / "out"), "--no-parity", *way.split()]
    assert CliRunner().invoke(cli, command).exit_code == 0
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {"max_new_tokens": 4, "eos_token_id": []}
    assert len(text_generator(tmp_path / "out").generate("stone").token_ids) == 4
    with pytest.raises(UsageError, match=r"has no key 'top_q' to ignore; it has guidance_scale, max_new_tokens"):
        export(source, tmp_path / "other", ignore_generation_keys=["top_q"])


def test_keys_of_config_json_are_checked_and_left_out_too(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | {"penalty_alpha": 0.6, "max_new_tokens": 3}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"config\.json: penalty_alpha is 0\.6, which intaglio does not support"):
        export(source, tmp_path / "out")
    export(source, tmp_path / "out", ignore_generation_keys=["penalty_alpha"])
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {"eos_token_id": 2, "max_new_tokens": 3}


def test_settings_of_ones_own(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", guidance_scale=2)
    own = tmp_path / "own.json"
    own.write_text('{"max_new_tokens": 5, "eos_token_id": []}')
    command = ["export", str(source), str(tmp_path / "out"), "--no-parity", "--generation-config", str(own)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert len(text_generator(tmp_path / "out").generate("stone").token_ids) == 5
    for text, message in (
        ("[]", r"own\.json: expected a JSON object; correct the file"),
        ('{"penalty_alpha": 1}', r"own\.json: penalty_alpha is 1, which intaglio does not support; leave it out"),
    ):
        own.write_text(text)
        with pytest.raises(UsageError, match=message):
            export(source, tmp_path / "other", generation_config=own)
    with pytest.raises(UsageError, match=r"no\.json: there is no such file"):
        export(source, tmp_path / "other", generation_config=tmp_path / "no.json")


def test_a_file_that_is_no_json_and_another_task(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    with pytest.raises(UsageError, match="is for text generation, and the task is feature-extraction"):
        export(source, tmp_path / "out", task="feature-extraction", ignore_generation_keys=["top_k"])
    (source / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json cannot be read .*; correct the checkpoint"):
        export(source, tmp_path / "out")
