"""Every model can be closed and used in a ``with`` block."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import Task
from intaglio.errors import UsageError
from intaglio.runtime import load
from intaglio.tests.runtime import fakes

CALLS: dict[Task, Callable[[Any], Any]] = {
    "text-classification": lambda model: model(["stone"]),
    "token-classification": lambda model: model(["stone"]),
    "question-answering": lambda model: model("Where?", "In the seal."),
    "feature-extraction": lambda model: model(["stone"]),
}


@pytest.mark.parametrize("task", CALLS)
def test_a_head_is_closed_by_its_block(tmp_path: Path, task: Task) -> None:
    folder = fakes.head(
        tmp_path / "head", task, np.eye(fakes.VOCAB, fakes.HIDDEN if task == "feature-extraction" else 2)
    )
    with load(folder, threads=1) as model:
        expected = CALLS[task](model)
        assert repr(model).startswith(f"<{type(model).__name__} qwen2 fp32, cpu with 1 thread")
    assert len(expected) == 1
    assert repr(model) == f"<{type(model).__name__} qwen2 fp32, closed>"
    assert model.manifest.task == task
    for use in (CALLS[task], lambda closed: closed.session):
        with pytest.raises(UsageError, match="the model is closed; load it again"):
            use(model)
    model.close()


def test_a_generator_is_closed_by_its_block(tmp_path: Path) -> None:
    with fakes.text_generator(fakes.language_model(tmp_path / "lm")) as model:
        assert model.generate("stone", max_new_tokens=1).token_ids
    for use in (model.generate, model.stream, model.score):
        with pytest.raises(UsageError, match="the model is closed; load it again"):
            use("stone")
    for open_one in (model.conversation, model.scheduler):
        with pytest.raises(UsageError, match="the model is closed; load it again"):
            open_one()
