"""transformers' model of a checkpoint in float32, for ``--reference``."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import getsource
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...artifact import Attention, Task
from ...errors import DependencyError, UnsupportedError, first_line
from ...models.config import ConfigReader

CLASSES: Mapping[Task, str] = {
    "text-generation": "AutoModelForCausalLM",
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}


def transformers_logits(
    checkpoint_folder: Path, task: Task, rows: Sequence[NDArray[np.int64]], attention: Attention = "causal"
) -> Iterator[NDArray[np.float32]]:
    """Yield the outputs of transformers' head for each sequence of tokens int64 [S]; the whole model is in memory.

    Code of the checkpoint's own is not run: "bidirectional" gives transformers' own class a bidirectional mask.

    Returns:
        float32 arrays: logits [S, V] of a causal LM, [S, L] of token classification, [1, L] of sequence
        classification, start and end logits [2, S] of question answering, hidden states [S, D] of the bare model.

    Raises:
        DependencyError: transformers is not installed.
        UnsupportedError: it cannot read this checkpoint, or lacks weights that the head needs.
    """
    transformers = _transformers()
    with _quiet(transformers):
        model = _model(transformers, Path(checkpoint_folder), task, attention)
    trunk = getattr(model, model.base_model_prefix, model)
    rotary = copy.deepcopy(trunk.rotary_emb)
    for tokens in rows:
        # Some RoPE scalings keep the longest sequence so far; a sequence must not depend on the others.
        trunk.rotary_emb = copy.deepcopy(rotary)
        ids = torch.from_numpy(np.ascontiguousarray(tokens, np.int64))[None]
        with torch.inference_mode(), _quiet(transformers):
            output = model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
        yield _outputs(output, task)


def _transformers() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
    except ImportError as error:
        raise DependencyError(
            f"the reference transformers cannot be imported ({error}); install it with `pip install transformers`, "
            "or leave --reference out"
        ) from None
    module: ModuleType = transformers
    return module


def _outputs(output: Any, task: Task) -> NDArray[np.float32]:
    if task == "question-answering":
        found = torch.cat((output.start_logits, output.end_logits))
    elif task == "text-classification":
        found = output.logits
    else:
        found = (output.last_hidden_state if task == "feature-extraction" else output.logits)[0]
    array: NDArray[np.float32] = found.float().numpy()
    return array


def _model(transformers: ModuleType, folder: Path, task: Task, attention: Attention) -> Any:
    _check_config(folder)
    kind = getattr(transformers, CLASSES[task])
    if attention == "bidirectional" and "is_causal" not in getsource(transformers.masking_utils.create_causal_mask):
        raise UnsupportedError(
            f"{folder}: transformers {transformers.__version__} has no bidirectional attention for this family; "
            "upgrade it, or leave --reference transformers out"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.is_causal = attention == "causal"  # what its masks are made by
        model, loaded = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except Exception as error:  # it raises whatever its parts raise
        raise UnsupportedError(
            f"{folder}: transformers {transformers.__version__} cannot read this checkpoint "
            f"({type(error).__name__}: {first_line(error)}); leave --reference transformers out"
        ) from None
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise UnsupportedError(
            f"{folder}: transformers {transformers.__version__} finds no {missing[0]} for {task} in this checkpoint; "
            "leave --reference transformers out"
        )
    return model.eval()


def _check_config(folder: Path) -> None:
    """Refuse configurations that transformers is known to fail on, with a remedy.

    Raises:
        UnsupportedError: the configuration is one of these.
    """
    config = ConfigReader.open(folder).values
    # A defect of transformers' own class, not a property of the family: it is no part of the family's record.
    if config.get("model_type") != "exaone4" or config.get("layer_types") is not None:
        return
    remedy = "write the layers out as layer_types in config.json, or leave --reference transformers out"
    if isinstance(pattern := config.get("sliding_window_pattern"), str):
        raise UnsupportedError(
            f"{folder / 'config.json'}: sliding_window_pattern is {pattern!r}, and transformers reads whole numbers "
            f"only; {remedy}"
        )
    if "sliding_window" in config and config["sliding_window"] is None:
        raise UnsupportedError(
            f"{folder / 'config.json'}: sliding_window is null, and transformers needs layer_types with that; {remedy}"
        )


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Suppress warnings and progress bars on stderr."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
