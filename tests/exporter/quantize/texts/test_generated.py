"""Calibration text that the model writes: sampled from its own distribution, within its memory, the same each time."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from intaglio.errors import UnsupportedError, UsageError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.quantize.calibration import Calibration, read_windows
from intaglio.exporter.quantize.texts import generated
from intaglio.exporter.quantize.texts.generated import PROMPT, needed_memory
from intaglio.files.tokenizer_file import named_tokens, read_tokenizer
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny

SOURCE = Path(__file__).parents[3] / "checkpoints" / "tiny-qwen2"
COUNT, LENGTH = 20, 48  # more than a batch


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint(SOURCE)


def read(checkpoint: Checkpoint, scratch: Path | None = None, **limits: int) -> torch.Tensor:
    calls: list[tuple[str, int, int]] = []
    calibration = Calibration(("self",), **({"windows": COUNT, "length": LENGTH} | limits))
    found = read_windows(checkpoint, calibration, lambda *call: calls.append(call), scratch)
    if calls:
        assert [call[1] for call in calls] == sorted(call[1] for call in calls)
        assert calls[-1] == ("text", found.tokens.numel(), found.tokens.numel())
    assert [(text.name, text.tokens) for text in found.texts] == [("self", found.tokens.numel())]
    return found.tokens


@pytest.fixture(scope="module")
def windows(checkpoint: Checkpoint) -> torch.Tensor:
    return read(checkpoint)


@pytest.fixture(scope="module")
def log_probabilities(checkpoint: Checkpoint, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = checkpoint.load()(windows).logits
    return logits.log_softmax(-1)


def test_windows_begin_with_the_default_text(checkpoint: Checkpoint, windows: torch.Tensor) -> None:
    assert windows.shape == (COUNT, LENGTH)
    tokenizer = read_tokenizer(SOURCE)
    assert tokenizer is not None
    first = len(tokenizer.encode("").ids)
    text = Calibration(("default",), 1, 10**6)
    whole = read_windows(checkpoint, text, lambda *_: None).tokens[0]
    runs = {tuple(run) for run in whole.unfold(0, PROMPT, 1).tolist()}
    begins = [tuple(window) for window in windows[:, first : first + PROMPT].tolist()]
    assert len(set(begins)) > COUNT // 2
    if len(whole) == checkpoint.config.context_length:  # the text is longer than the context: only its beginning
        assert all(len(begin) == PROMPT for begin in begins)
    else:
        assert set(begins) <= runs


def test_tokens_are_sampled_from_the_models_distribution(
    windows: torch.Tensor, log_probabilities: torch.Tensor
) -> None:
    """At temperature 1 the mean surprise of the tokens is the mean entropy; other ways of choosing miss it by far."""
    predicted = log_probabilities[:, PROMPT:-1]
    entropy = -(predicted.exp() * predicted).sum(-1).mean()
    surprise = F.nll_loss(predicted.flatten(0, 1), windows[:, PROMPT + 1 :].flatten())
    greedy = -predicted.amax(-1).mean()
    uniform = -predicted.mean()
    assert abs(surprise - entropy) < 0.25 * min(entropy - greedy, uniform - entropy)


def test_the_same_text_each_time_and_kept_for_the_next(
    checkpoint: Checkpoint, windows: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch.equal(read(checkpoint, tmp_path), windows)

    def fails(*_: object) -> torch.Tensor:
        raise AssertionError("it is generated again")

    monkeypatch.setattr(generated, "load_module", fails)
    assert torch.equal(read(checkpoint, tmp_path), windows)
    with pytest.raises(AssertionError, match="generated again"):
        read(checkpoint, tmp_path, windows=4)


def test_a_window_goes_on_after_the_end_of_a_text(tmp_path: Path) -> None:
    """A model that ends every text at once writes beginnings, each followed by the token of the end."""
    values = tiny.config("qwen2", num_hidden_layers=1, tie_word_embeddings=False)
    tensors = tiny.weights(values)
    folder = tiny.write(tmp_path / "checkpoint", values, tensors=tensors, tokenizer=True)
    end = named_tokens(folder)["eos_token"]
    tokenizer = read_tokenizer(folder)
    assert tokenizer is not None
    id = tokenizer.token_to_id(end)
    # The final norm gives ones and minus ones at least in sum: a head of large weights for one token decides.
    tensors["model.norm.weight"] = torch.zeros(64)
    tensors["model.norm.weight"][0] = 1.0
    for name, tensor in tensors.items():
        if name.startswith("model.layers.") and name.endswith("_proj.weight"):
            tensor.zero_()
    tensors["model.embed_tokens.weight"][:, 0] = 1.0
    tensors["lm_head.weight"].zero_()
    tensors["lm_head.weight"][id, 0] = 1000.0
    tiny.write(folder, values, tensors=tensors, tokenizer=True)
    windows = read(Checkpoint(folder), windows=2, length=3 * (PROMPT + 1) + 4)
    for window in windows.tolist():
        assert [token == id for token in window] == ([False] * PROMPT + [True]) * 3 + [False] * 4


def test_a_model_without_room_or_head_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = needed_memory(checkpoint.config, 16, LENGTH)
    weights = sum(tensor.numel() * 4 for tensor in checkpoint.load().state_dict().values())
    assert needed > 0.8 * weights
    monkeypatch.setattr(generated, "available_memory", lambda: needed - 1)
    with pytest.raises(UsageError) as caught:
        read(checkpoint)
    assert str(caught.value) == (
        f"--calibration self holds the whole model in float32, which takes {needed / 1e9:,.1f} GB, and "
        f"{needed / 1e9:,.1f} GB are free; give text files as --calibration, or free some memory"
    )
    monkeypatch.setattr(generated, "available_memory", lambda: needed)
    assert read(checkpoint).shape == (COUNT, LENGTH)
    source = tiny.write(tmp_path / "classifier", tiny.config("qwen2", "text-classification"), tokenizer=True)
    with pytest.raises(UsageError) as caught:
        quantize(source, tmp_path / "out", options=QuantizeOptions("gptq", calibration=["default", "self"]))
    assert str(caught.value) == (
        "--calibration self samples text from the model, and the task is text-classification; give text files instead"
    )


def test_a_model_that_computes_nan_is_refused(tmp_path: Path) -> None:
    values = tiny.config("qwen2", num_hidden_layers=1)
    tensors = tiny.weights(values)
    tensors["model.norm.weight"][:] = torch.inf
    folder = tiny.write(tmp_path / "checkpoint", values, tensors=tensors, tokenizer=True)
    with pytest.raises(UnsupportedError) as caught:
        read(Checkpoint(folder))
    assert str(caught.value) == (
        f"{folder}: the model computes NaN or infinite logits; see whether the checkpoint is damaged, or quantize it "
        "with --method rtn"
    )


def test_a_quantization_mixes_it_with_files(tmp_path: Path) -> None:
    stages: list[str] = []

    def report(stage: str, _done: int, _total: int) -> None:
        if stage not in stages:
            stages.append(stage)

    options = QuantizeOptions(calibration=("default", "self"), windows=4)
    manifest = quantize(SOURCE, tmp_path / "out", options=options, progress=report)
    assert stages[:3] == ["text", "sensitivity", "calibration"]
    assert [text.name for text in manifest.calibration] == ["default", "self"]
    assert len({text.tokens for text in manifest.calibration}) == 1
