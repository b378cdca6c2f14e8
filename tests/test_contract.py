"""The names of a graph's inputs and outputs, which programs other than intaglio know too."""

import typing

import pytest
from intaglio import contract
from intaglio.artifact import FLOAT_PRECISIONS, PRECISIONS, TASKS, CacheDtype


def test_a_causal_lm_has_a_cache() -> None:
    assert contract.input_names("text-generation", 2) == [
        "input_ids",
        "attention_mask",
        "past_key_values.0.key",
        "past_key_values.0.value",
        "past_key_values.1.key",
        "past_key_values.1.value",
    ]
    assert contract.output_names("text-generation", 1) == ["logits", "present.0.key", "present.0.value"]


@pytest.mark.parametrize("task", [task for task in TASKS if task != "text-generation"])
def test_the_other_tasks_have_none(task: typing.Any) -> None:
    assert contract.input_names(task, 2) == ["input_ids", "attention_mask"]
    assert contract.output_names(task, 2) == list(contract.OUTPUTS[task])


def test_every_task_and_type_is_in_the_tables() -> None:
    assert set(contract.OUTPUTS) == set(TASKS)
    assert set(contract.CACHE_DTYPES) == set(FLOAT_PRECISIONS)
    assert set(contract.ACTIVATIONS) == set(typing.get_args(CacheDtype))
    assert set(contract.BITS) >= set(PRECISIONS)
