"""The repr of models and results."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from intaglio.artifact import TensorEntry
from intaglio.runtime import Classification, Generation, Score, SequenceClassifier, load
from intaglio.tests.runtime import fakes

ON_CPU = "cpu with 1 thread, ONNX Runtime's kernels"


def test_a_model_names_its_class_precision_size_and_device(tmp_path: Path) -> None:
    classifier = load(
        fakes.head(tmp_path / "cls", "text-classification", np.zeros((fakes.VOCAB, 2))),
        task="text-classification",
        threads=1,
        kernels="onnxruntime",
    )
    assert repr(classifier) == f"<SequenceClassifier qwen2 fp32, {ON_CPU}>"
    tensors = {"embedding": TensorEntry("int4", (1000, 2000), ("a",)), "scales": TensorEntry("fp32", (1000, 50), ())}
    manifest = replace(classifier.manifest, precision="int4", tensors=tensors)
    session = replace(classifier.session, manifest=manifest, threads=2, intaglio_kernels=("MatMulNBits",))
    assert (
        repr(SequenceClassifier(session, classifier.tokenizer))
        == "<SequenceClassifier qwen2 int4, 2.0M parameters, cpu with 2 threads, intaglio's kernels>"
    )


def test_a_generator_its_conversations_and_its_schedulers(tmp_path: Path) -> None:
    model = load(fakes.language_model(tmp_path / "lm"), task="text-generation", threads=1, kernels="onnxruntime")
    assert repr(model) == f"<TextGenerator qwen2 fp32, {ON_CPU}>"
    conversation, scheduler = model.conversation(), model.scheduler(slots=3)
    assert repr(conversation) == "<Conversation with 0 tokens in its KV cache>"
    conversation.generate([1, 2, 3], max_new_tokens=1)
    assert repr(conversation) == "<Conversation with 3 tokens in its KV cache>"
    scheduler.submit([1, 2, 3])
    assert repr(scheduler) == "<Scheduler of 3 slots, 0 running, 1 waiting>"
    model.close()
    assert repr(model) == "<TextGenerator qwen2 fp32, closed>"
    assert repr(conversation) == "<Conversation closed>"
    assert repr(scheduler) == "<Scheduler of 3 slots, closed>"


def test_results_abbreviate_long_fields() -> None:
    generation = Generation("a text", tuple(range(500)), (1, 2), "eos")
    assert repr(generation) == (
        "Generation(text='a text', token_ids=(0, 1, 2, 3, 4, 5, ...), prompt_token_ids=(1, 2), finish_reason='eos', "
        "logprobs=None, score=None)"
    )
    score = Score((1,), tuple(range(100)), ("a",) * 100, (-1.0,) * 100, is_greedy=True)
    assert len(repr(score)) < 250
    labels = Classification("a", 0.5, {f"label {index}": 0.0 for index in range(100)})
    assert repr(labels).startswith("Classification(label='a', score=0.5, scores={'label 0': 0.0, ")
    assert len(repr(labels)) < 250
