"""Artifacts of a base with adapters: what they hold, what they say of it, and that parity finds them faithful."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from intaglio.artifact import read_manifest
from intaglio.cli.main import cli
from intaglio.errors import UsageError
from intaglio.exporter import export
from intaglio.models.adapters.given import Adapter
from intaglio.parity import check
from intaglio.parity.options import CheckOptions
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.models.adapters import peft_maker

peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

IDS = torch.tensor([[5, 9, 200, 31, 7]])
QUICK = CheckOptions(windows=1, window=16, steps=2, longest=32)


def lora(**settings: Any) -> Any:
    defaults: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
    return peft.LoraConfig(**(defaults | settings))


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_a_merged_model_computes_what_peft_computes(tmp_path: Path, family: str) -> None:
    base = tiny.write(tmp_path / "base", tiny.config(family), tokenizer=True)
    adapter = peft_maker.write(tmp_path / "adapter", base, lora(task_type="CAUSAL_LM"))
    manifest = export(base, tmp_path / "out", adapters=[adapter])
    (recorded,) = manifest.source.adapters
    assert (recorded.id, recorded.revision, recorded.weight) == ("adapter", None, 1.0)
    assert read_manifest(tmp_path / "out").source == manifest.source
    assert check(tmp_path / "out", base, adapters=[adapter], options=QUICK).verdict == "faithful"
    whole = peft_maker.model(base)
    without = peft_maker.logits(whole, IDS)
    expected = peft_maker.logits(peft_maker.with_adapter(whole, adapter), IDS)
    found = torch.as_tensor(drive.CachedGraph(tmp_path / "out")(IDS, torch.ones_like(IDS)))
    assert (found - expected).abs().max() < 1e-4 < (without - expected).abs().max()


def run(*arguments: str) -> str:
    """Run a command; return what it prints, its white space as single spaces."""
    result = CliRunner().invoke(cli, list(arguments), prog_name="intaglio")
    return " ".join(f"{result.output} {result.exception or ''}".split())


def test_the_commands(tmp_path: Path) -> None:
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"), tokenizer=True)
    one = peft_maker.write(tmp_path / "one", base, lora(task_type="CAUSAL_LM"), seed=1)
    two = peft_maker.write(tmp_path / "two", base, lora(task_type="CAUSAL_LM", use_rslora=True), seed=2)
    given = ["--adapter", str(one), "--adapter", f"{two}=-0.5"]
    out = tmp_path / "out"
    run("export", str(base), str(out), *given)
    recorded = read_manifest(out).source.adapters
    assert [(item.id, item.weight) for item in recorded] == [("one", 1.0), ("two", -0.5)]
    assert read_manifest(out).parity.verdict == "faithful"
    run("quantize", str(base), str(tmp_path / "int8"), "--method", "rtn", "--precision", "int8", "--no-parity", *given)
    assert read_manifest(tmp_path / "int8").source == read_manifest(out).source
    shown = run("inspect", str(out))
    assert f"adapters one @ {recorded[0].digest} x 1, two @ {recorded[1].digest} x -0.5" in shown
    assert "adapters one x 1, two x -0.5" in run("inspect", str(base), *given)
    # parity takes the weights from the manifest, and the folders in any order
    arguments = ["parity", str(out), "--source", str(base), "--window", "16", "--windows", "1", "--steps", "2"]
    arguments += ["--max-length", "32"]
    assert "faithful" in run(*arguments, "--adapter", str(two), "--adapter", str(one))
    missing = (
        "was made with the adapter 'one', a folder, and a manifest does not say where that is; give it as --adapter"
    )
    assert missing in run(*arguments)


def test_parity_wants_the_adapters_of_the_artifact(tmp_path: Path) -> None:
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"))
    one = peft_maker.write(tmp_path / "one", base, lora(), seed=1)
    two = peft_maker.write(tmp_path / "two", base, lora(), seed=2)
    export(base, tmp_path / "plain")
    export(base, tmp_path / "both", adapters=[Adapter(one, 0.5), two])
    wrong = {
        "plain": ([one], r"plain was not made with the adapter one, whose digest is \w{12}… \(its adapters: none\)"),
        "both": ([one], r"both was made with the adapter two too \(digest \w{12}…\); give it as --adapter"),
    }
    for name, (given, message) in wrong.items():
        with pytest.raises(UsageError, match=message):
            check(tmp_path / name, base, adapters=given, options=QUICK)
    with pytest.raises(UsageError, match=r"adapter one at the weight 0.5, and not 2; leave the weight out"):
        check(tmp_path / "both", base, adapters=[Adapter(one, 2), two], options=QUICK)
    with pytest.raises(UsageError, match=r"plain is an artifact, and adapters are merged into a checkpoint's weights"):
        export(tmp_path / "plain", tmp_path / "again", adapters=[one])


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_a_classifier_over_a_base_without_a_head(tmp_path: Path, family: str) -> None:
    base = tiny.write(tmp_path / "base", tiny.config(family), tokenizer=True)
    settings = {"num_labels": 3, "id2label": {0: "no", 1: "maybe", 2: "yes"}}
    whole = peft_maker.model(base, "text-classification", **settings)
    adapted = peft_maker.adapt(whole, lora(task_type="SEQ_CLS"))
    peft_maker.save(adapted, tmp_path / "adapter")
    expected = peft_maker.logits(adapted, IDS)
    manifest = export(base, tmp_path / "unnamed", adapters=[tmp_path / "adapter"])
    assert (manifest.task, manifest.model.labels) == ("text-classification", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert "the 3 labels of the adapter have no names: they are LABEL_0 and so on" in manifest.notes
    whole.config.save_pretrained(tmp_path / "adapter")  # as trainers do
    manifest = export(base, tmp_path / "out", adapters=[tmp_path / "adapter"])
    assert manifest.model.labels == ("no", "maybe", "yes")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["architectures"] == [f"{tiny.CLASSES[family]}ForSequenceClassification"]
    assert written["label2id"] == {"no": 0, "maybe": 1, "yes": 2}
    feeds = {"input_ids": IDS.numpy(), "attention_mask": np.ones_like(IDS.numpy())}
    (found,) = drive.run(drive.session(tmp_path / "out"), feeds)
    assert np.abs(found - expected.numpy()).max() < 1e-4
    assert check(tmp_path / "out", base, adapters=[tmp_path / "adapter"], options=QUICK).verdict == "faithful"
    # the artifact is a source of its own
    export(tmp_path / "out", tmp_path / "again", precision="fp16")
    assert read_manifest(tmp_path / "again").source == manifest.source


def test_the_tokenizer_of_an_adapter(tmp_path: Path) -> None:
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"), tokenizer=True)
    adapter = peft_maker.write(tmp_path / "adapter", base, lora(task_type="CAUSAL_LM"))
    texts = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
    for name in texts:
        if (base / name).is_file():
            shutil.copyfile(base / name, adapter / name)
    same = export(base, tmp_path / "same", adapters=[adapter])
    assert not any("tokenizer" in note for note in same.notes)
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}!", encoding="utf-8")
    manifest = export(base, tmp_path / "out", adapters=[adapter])
    assert any(
        note.startswith(f"the tokenizer is that of the adapter {adapter} and not the base's: ")
        for note in manifest.notes
    )
    assert (tmp_path / "out" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ messages[0].content }}!"


def test_a_resized_vocabulary(tmp_path: Path) -> None:
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"))
    adapter = peft_maker.write(tmp_path / "adapter", base, lora(task_type="CAUSAL_LM"), resized=300)
    manifest = export(base, tmp_path / "out", adapters=[adapter])
    assert manifest.model.vocab_size == 300
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 300
    assert check(tmp_path / "out", base, adapters=[adapter], options=QUICK).verdict == "faithful"
