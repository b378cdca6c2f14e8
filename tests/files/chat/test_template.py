"""Errors of chat templates say what is wrong with the template, its variables or its messages."""

from collections.abc import Mapping
from typing import Any

import pytest
from intaglio.errors import ArtifactError, PromptError, UsageError
from intaglio.files.chat.template import ChatFormat, read_chat_format
from intaglio.tests.files.chat.conversations import ASKED, CHECKPOINTS, CLOCK


def test_tools_that_the_template_never_mentions() -> None:
    template = "{# tools #}{{ messages[0]['tools'] }}{{ 'tools' }}{% if true %}{{ documents }}{% endif %}"
    only = ChatFormat("out", {"default": template})
    assert only.render([ASKED], documents=[{"text": "x"}], tools=[]).startswith("tools")
    with pytest.raises(UsageError) as caught:
        only.render([ASKED], tools=[CLOCK])
    assert str(caught.value) == (
        "out: its chat template never mentions tools, so the model would not see them; leave tools out, "
        "or describe them in the system message"
    )
    several = ChatFormat("out", {"default": template, "agent": "{{ tools | length }}", "broken": "{{"})
    with pytest.raises(
        UsageError, match=r"its chat template 'default' never mentions tools.*choose the template 'agent', or describe"
    ):
        several.render([ASKED], tools=[CLOCK])
    assert several.render([ASKED], tools=[CLOCK], template="agent") == "1"
    with pytest.raises(UsageError, match=r"its chat template 'agent' never mentions documents, .* leave documents out"):
        several.render([ASKED], documents=[{"text": "x"}], template="agent")


def test_a_variable_that_the_template_does_not_read() -> None:
    chat_format = ChatFormat("out", {"default": "{{ thinking_budget or 'none' }}"})
    assert chat_format.render([ASKED], thinking_budget=3, enable_thinking=False) == "3"
    with pytest.raises(
        UsageError,
        match=r"^out: its chat template does not read the variable 'thinking_budgt'; did you mean 'thinking_b",
    ):
        chat_format.render([ASKED], thinking_budgt=3)
    with pytest.raises(UsageError, match=r"does not read the variable 'date'; leave it out$"):
        chat_format.render([ASKED], date="today")


def test_a_missing_template() -> None:
    with pytest.raises(ArtifactError) as caught:
        ChatFormat("out").render([ASKED])
    assert str(caught.value) == (
        "out has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
        "put one beside the checkpoint and export the model again, or give `generate` the whole prompt"
    )


def test_a_template_that_does_not_parse() -> None:
    with pytest.raises(ArtifactError) as caught:
        ChatFormat("out", {"default": "a\n{% if x %}\nb"}).render([ASKED])
    assert str(caught.value).startswith("out: its chat template cannot be read: line 3: Unexpected end of template.")
    assert str(caught.value).endswith("; fix the checkpoint's file and export the model again")


FAILING: dict[str, tuple[str, str]] = {
    "a role it refuses": (
        "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
        "{{ raise_exception('Only user and assistant, not ' + m.role) }}{% endif %}{% endfor %}",
        "out: its chat template fails on message 2 of 4, role 'tool': Only user and assistant, not tool; "
        "change the message to one that the template accepts",
    ),
    "a field that is not there": (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ m.name.upper() }}{% endif %}{% endfor %}",
        "message 2 of 4, role 'tool': 'dict object' has no attribute 'name'",
    ),
    "a type it does not expect": (
        "{% for m in messages %}{{ m.content + (1 if m.role == 'assistant' else 'x') }}{% endfor %}",
        "message 1 of 4, role 'assistant': ",
    ),
    "the conversation as a whole": (
        "{% if messages|length > 3 %}{{ raise_exception('too many') }}{% endif %}",
        "message 3 of 4, role 'user': too many",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_template_that_fails_on_a_message_names_it(case: str) -> None:
    source, message = FAILING[case]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "x"},
    ]
    with pytest.raises(PromptError) as caught:
        ChatFormat("out", {"default": source}).render(messages)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the conversation is empty; give at least one message"),
        ("hi", 'the conversation is str, expected a list of messages; give [{"role": "user", "content": "..."}]'),
        ({"role": "user", "content": "x"}, "the conversation is dict, expected a list of messages; "),
        (["hi"], "message 0 has no role; "),
        ([{"role": "user", "content": "x"}, {"content": "x"}], "message 1 has no role; "),
        ([{"role": "user", "content": 3}], "message 0, role 'user': its content is int; give text"),
    ],
)
def test_invalid_messages(messages: Any, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        read_chat_format(CHECKPOINTS / "tiny-qwen2").render(messages)
    assert str(caught.value).startswith(message)


def test_a_final_message_that_cannot_be_continued() -> None:
    chat_format = read_chat_format(CHECKPOINTS / "tiny-qwen2")
    with pytest.raises(PromptError, match="message 0, role 'assistant', has no content to continue; give it text"):
        chat_format.render([{"role": "assistant"}], continue_final_message=True)
    cutting = ChatFormat("out", {"default": "{{ messages[0].content[:3] }}"})
    with pytest.raises(PromptError, match="the last message's text is not in the prompt"):
        cutting.render([{"role": "assistant", "content": "a long one"}], continue_final_message=True)
    blind = ChatFormat("out", {"default": "{{ messages[0].role }}"})
    with pytest.raises(UsageError, match="template does not read the content of messages; leave the option out"):
        blind.render([{"role": "assistant", "content": "x"}], continue_final_message=True)


class Text(str):
    """A subclass, whose methods a template must not reach."""

    def secret(self) -> str:
        return "told"


def test_templates_see_plain_values_only() -> None:
    import numpy as np

    class Own:
        pass

    class Model:
        def model_dump(self) -> dict[str, Any]:  # as pydantic has it
            return {"a": 1}

    values: Mapping[str, Any] = {
        "text": Text("t"),
        "number": np.int64(3),
        "object": Own(),
        "truth": np.bool_(False),
        "model": Model(),
    }
    source = "{{ messages[0].text }}{{ messages[0].text.secret is defined }}{{ messages[0].number + 1 }}"
    source += "{{ messages[0].object }}{{ messages[0].truth }}{{ messages[0].model.a }}"
    assert ChatFormat("out", {"default": source}).render([{"role": "user", **values}]) == "tFalse4<Own>False1"
