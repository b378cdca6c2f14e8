"""Files of prompts."""

from pathlib import Path

import pytest
from intaglio.errors import UsageError
from intaglio.serving.load.prompts import read_prompts


def test_lines_are_texts_or_json(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text('plain\n\n{"prompt": "p"}\n{"messages": [{"role": "system", "content": "s"}]}\n', encoding="utf-8")
    prompts = read_prompts(file, seed=0)
    found = sorted(str(prompts.messages(number)) for number in range(3))
    assert found == sorted(
        str(messages)
        for messages in (
            [{"role": "user", "content": "plain"}],
            [{"role": "user", "content": "p"}],
            [{"role": "system", "content": "s"}],
        )
    )
    assert prompts.messages(3) == prompts.messages(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "prompts: there is no prompt; write one a line"),
        (b"a\n{", "prompts:2: the line is not JSON"),
        (b'{"text": "a"}', 'prompts:1: there is neither "messages" nor "prompt"; give one of them'),
        (b'{"messages": []}', 'prompts:1: there is neither "messages" nor "prompt"'),
        (b"\xff", "the prompts cannot be read: 'utf-8' codec"),
        (None, "the prompts cannot be read: .*No such file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "prompts"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_prompts(file, seed=0)
