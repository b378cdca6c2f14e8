"""The two tokenizers, trained on the text and written in their families' formats."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .text import UNKNOWN

SIZE = 4096
# Qwen2's own way of cutting text, a digit at a time; EXAONE's cuts as GPT-2's does.
_QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Style:
    """A family's configuration of its tokenizer. ``special`` tokens follow the trained ones, in this order."""

    tokenizer_class: str
    special: tuple[str, ...]
    plain: tuple[str, ...]
    end_of_text: str
    end_of_turn: str
    template: str


QWEN2 = Style(
    tokenizer_class="Qwen2Tokenizer",
    special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", UNKNOWN),
    plain=(),
    end_of_text="<|endoftext|>",
    end_of_turn="<|im_end|>",
    template="qwen2.jinja",
)
EXAONE4 = Style(
    tokenizer_class="PreTrainedTokenizerFast",
    special=(
        ("[PAD]", "[BOS]", "[EOS]", UNKNOWN, "[|system|]", "[|user|]", "[|assistant|]", "[|tool|]", "[|endofturn|]")
    ),
    plain=("<think>", "</think>"),
    end_of_text="[EOS]",
    end_of_turn="[|endofturn|]",
    template="exaone4.jinja",
)


class Vocabulary:
    """A trained tokenizer with its family's style: text to ids, conversations to ids, and the files."""

    def __init__(self, style: Style, corpus: Iterable[str]) -> None:
        self.style = style
        self.tokenizer = _train(style, corpus)
        self.template = (Path(__file__).parent / "templates" / style.template).read_text(encoding="utf-8")

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    @property
    def pad(self) -> str:
        return "[PAD]" if "[PAD]" in self.style.special else self.style.end_of_text

    @property
    def end_ids(self) -> list[int]:
        return [self.id(self.style.end_of_turn), self.id(self.style.end_of_text)]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def conversation(self, question: str, answer: str) -> list[int]:
        """Return the ids of one question and answer in the chat template."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return self.encode(environment.from_string(self.template).render(messages=messages, **self._special()))

    def _special(self) -> dict[str, Any]:
        end = self.style.end_of_text if self.style is EXAONE4 else self.style.end_of_turn
        return {"bos_token": "[BOS]" if self.style is EXAONE4 else None, "eos_token": end, "pad_token": self.pad}

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja."""
        self.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        named = {name: token for name, token in self._special().items() if token is not None}
        config = {
            "add_bos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
            "tokenizer_class": self.style.tokenizer_class,
            **self._special(),
            "additional_special_tokens": [token for token in self.style.special if token not in named.values()],
            "unk_token": None,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n")
        (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")


def _train(style: Style, corpus: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if style is QWEN2:
        tokenizer.normalizer = normalizers.NFC()
        pieces = pre_tokenizers.Split(Regex(_QWEN2_PIECES), behavior="isolated", invert=False)
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, whole])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((text.replace(UNKNOWN, "") for text in corpus), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in style.special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in style.plain])
    return tokenizer
