"""Published tokenizer_config.json files over a tiny vocabulary: the ids and the text equal transformers'."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from intaglio.runtime.text.tokenizer import load_tokenizer
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TEXTS = [
    "Hello <think>\nx</think> y <tool_call>{}</tool_call>",
    "<｜User｜>hi<｜Assistant｜><think>\n",
    "  don't  stop , it 's  fine .\n\n\n  x",
    "123456 서울 날씨 \u00a0é",
    "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
    "<|im_start|>user\n서울<|im_end|>\n<|vision_start|><|image_pad|>x",
    "[|user|]\nhi[|endofturn|]\n[BOS]<tool_result>",
]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VISION = [f"<|{name}|>" for name in ("object_ref_start", "box_end", "vision_start", "vision_pad", "image_pad")]
CODE = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|repo_name|>"]
THOUGHT = ["<tool_response>", "</tool_response>", "<think>", "</think>"]
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
EXAONE = [f"[{name}]" for name in ("PAD", "BOS", "EOS", "UNK", "|endofturn|", "|system|", "|user|", "|assistant|")]


def named(content: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


QWEN: dict[str, Any] = {
    "add_prefix_space": False,
    "bos_token": None,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "errors": "replace",
    "pad_token": "<|endoftext|>",
    "split_special_tokens": False,
    "tokenizer_class": "Qwen2Tokenizer",
    "unk_token": None,
}
R1: dict[str, Any] = {
    "add_bos_token": True,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    "legacy": True,
    "sp_model_kwargs": {},
    "unk_token": None,
    "tokenizer_class": "LlamaTokenizerFast",
}
GTE = {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]}
OWN = {"bos_token": "[BOS]", "eos_token": "[|endofturn|]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
# The checkpoint whose vocabulary it is, special tokens, other added tokens, tokenizer_config.json.
PUBLISHED: dict[str, tuple[str, list[str], list[str], dict[str, Any]]] = {
    "Qwen1.5-Chat": ("tiny-qwen2", CHATML, [], QWEN | {"additional_special_tokens": CHATML[1:]}),
    "Qwen2.5": ("tiny-qwen2", CHATML + VISION, CODE, QWEN | {"additional_special_tokens": CHATML[1:] + VISION}),
    "QwQ-32B": ("tiny-qwen2", CHATML + VISION, CODE + THOUGHT, QWEN | {"add_bos_token": False}),
    "Unsloth": (
        "tiny-qwen2",
        CHATML + VISION,
        CODE,
        QWEN | {"pad_token": "<|vision_pad|>", "padding_side": "left", "extra_special_tokens": {}},
    ),
    "saved by transformers 5": (
        "tiny-qwen2",
        CHATML + VISION,
        CODE,
        QWEN | {"backend": "tokenizers", "is_local": True, "extra_special_tokens": CHATML[1:] + VISION},
    ),
    "gte-Qwen2": ("tiny-qwen2", CHATML, [], QWEN | {"add_eos_token": True, "eos_token": CHATML[0], "auto_map": GTE}),
    "KaLM": ("tiny-qwen2", CHATML, [], QWEN | {"eos_token": CHATML[0], "max_length": 512, "padding_side": "right"}),
    "DeepSeek-R1-Distill": (
        "tiny-qwen2",
        [END, BEGIN],
        ["<｜User｜>", "<｜Assistant｜>", "<|EOT|>", *THOUGHT, *CODE],
        R1 | {"bos_token": named(BEGIN), "eos_token": named(END), "pad_token": named(END)},
    ),
    "EXAONE-4.0": (
        "tiny-exaone4",
        EXAONE,
        [*THOUGHT, "<tool_call>", "<tool_result>"],
        OWN | {"clean_up_tokenization_spaces": True, "errors": "replace", "tokenizer_class": "GPT2Tokenizer"},
    ),
    "EXAONE-4.0 saved by transformers 5": (
        "tiny-exaone4",
        EXAONE,
        [*THOUGHT, "<tool_call>", "<tool_result>"],
        OWN | {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend"},
    ),
}


@pytest.mark.parametrize("by_id", [True, False], ids=["by id", ""])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_declarations(name: str, by_id: bool, tmp_path: Path) -> None:
    checkpoint, special, plain, config = PUBLISHED[name]
    backend = Tokenizer.from_file(str(CHECKPOINTS / checkpoint / "tokenizer.json"))
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in plain])
    backend.save(str(tmp_path / "tokenizer.json"))
    shutil.copy(CHECKPOINTS / checkpoint / "config.json", tmp_path)
    if by_id:
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        tokens = backend.get_added_tokens_decoder().items()
        config = config | {
            "added_tokens_decoder": {id: {key: getattr(token, key) for key in flags} for id, token in tokens}
        }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.eos_token_id == theirs.eos_token_id
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
