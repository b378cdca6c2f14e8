"""Write a Qwen2-MoE checkpoint in bfloat16 as an unquantized GGUF file, for llama.cpp to quantize.

    python -m intaglio.benchmarks.artifacts.mixture_gguf CHECKPOINT OUT.gguf

It needs numpy and gguf alone, so that it runs in llama.cpp's environment. Names, metadata and what stays in float32 are
those of llama.cpp's conversion and of its loader (src/models/qwen2moe.cpp). The tokenizer has a token for each byte and
one merge: prompts are token ids, and llama.cpp only needs to load it. Tensors are written one after the other; the
largest has one projection of all experts of a layer.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gguf  # pyright: ignore[reportMissingImports]  (of llama.cpp's environment)
import numpy as np
from numpy.typing import NDArray

ARCHITECTURE = "qwen2moe"
LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight",
}
PROJECTIONS = ("gate", "up", "down")
IN_FLOAT32 = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")


class _Written(NamedTuple):
    """A tensor of the file: its name, and the checkpoint's tensors of which it is stacked, one for most."""

    name: str
    sources: list[str]


class _Shards:
    """The bfloat16 tensors of a checkpoint's safetensors files."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[Path, int, tuple[int, ...]]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                if entry["dtype"] != "BF16":
                    raise SystemExit(f"{file}: tensor {name} is {entry['dtype']}; this script reads BF16")
                self._places[name] = (file, 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name][2]

    def read(self, name: str) -> NDArray[np.uint16]:
        """Return the bits of a tensor."""
        file, offset, shape = self._places[name]
        return np.array(np.memmap(file, np.uint16, "r", offset, shape))


def main(checkpoint: str, out: str) -> None:
    folder = Path(checkpoint)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shards = _Shards(folder)
    tensors = list(_tensors(config, shards))
    writer = gguf.GGUFWriter(out, ARCHITECTURE)
    for key, value in {**_architecture(config), **_vocabulary(int(config["vocab_size"]))}.items():
        add_value(writer, key, value)
    for one in tensors:
        shape = _shape(one, shards)
        if _is_float32(one, shape):
            writer.add_tensor_info(one.name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
        else:
            stored = (*shape[:-1], 2 * shape[-1])
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor_info(one.name, stored, np.dtype(np.uint8), int(np.prod(stored)), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for one in tensors:
        bits = np.concatenate([shards.read(source)[None] for source in one.sources])
        if _is_float32(one, _shape(one, shards)):
            writer.write_tensor_data((bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.write_tensor_data(bits.view(np.uint8))
    writer.close()


def _tensors(config: Mapping[str, Any], shards: _Shards) -> Iterator[_Written]:
    """Yield the tensors in the order of the file; llama.cpp needs a head, also where it is the embedding.

    Raises:
        SystemExit: a layer is no mixture, which llama.cpp cannot load.
    """
    embedding = "model.embed_tokens.weight"
    yield _Written("token_embd.weight", [embedding])
    for layer in range(int(config["num_hidden_layers"])):
        prefix = f"model.layers.{layer}."
        if f"{prefix}mlp.gate.weight" not in shards:
            raise SystemExit(f"layer {layer} has no experts, and llama.cpp has them in every layer of a {ARCHITECTURE}")
        for ours, theirs in LAYER.items():
            yield _Written(f"blk.{layer}.{theirs}", [prefix + ours])
        for name in PROJECTIONS:
            experts = range(int(config["num_experts"]))
            sources = [f"{prefix}mlp.experts.{expert}.{name}_proj.weight" for expert in experts]
            yield _Written(f"blk.{layer}.ffn_{name}_exps.weight", sources)
    yield _Written("output_norm.weight", ["model.norm.weight"])
    yield _Written("output.weight", ["lm_head.weight" if "lm_head.weight" in shards else embedding])


def _shape(one: _Written, shards: _Shards) -> tuple[int, ...]:
    """Return the shape in the file: experts are stacked, and the gate of the shared expert is a vector."""
    shape = shards.shape(one.sources[0])
    if one.name.endswith("_exps.weight"):
        return (len(one.sources), *shape)
    return shape[1:] if one.name.endswith("ffn_gate_inp_shexp.weight") else shape


def _is_float32(one: _Written, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or one.name.endswith(IN_FLOAT32)


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = int(config["num_attention_heads"])
    keys = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads", heads),
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.freq_base": float(config.get("rope_theta", 10_000.0)),
        "expert_count": config["num_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_feed_forward_length": config["shared_expert_intermediate_size"],
    }
    facts = {"general.type": "model", "general.name": "Random", "general.quantization_version": 2}
    return facts | {f"{ARCHITECTURE}.{key}": value for key, value in keys.items()}


def _vocabulary(size: int) -> dict[str, Any]:
    """Return a byte-level vocabulary: the bytes, one merge of two of them, the end of a text, and unused tokens."""
    characters = _byte_characters()
    space, letter = characters[ord(" ")], characters[ord("t")]
    tokens = [*characters, space + letter, "<|endoftext|>"]
    types = [gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL]
    if size < len(tokens):
        raise SystemExit(f"the vocabulary has {size} tokens; llama.cpp's tokenizer needs {len(tokens)}")
    unused = range(len(tokens), size)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*tokens, *(f"[PAD{number}]" for number in unused)],
        "tokenizer.ggml.token_type": [int(kind) for kind in types] + [int(gguf.TokenType.UNUSED)] * len(unused),
        "tokenizer.ggml.merges": [f"{space} {letter}"],
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def _byte_characters() -> list[str]:
    """Return the character of each byte in byte-level BPE: its own where it is printable, or else one from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def add_value(writer: Any, key: str, value: Any) -> None:
    """Add a value of the metadata in the type that llama.cpp reads it in."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


if __name__ == "__main__":
    main(*sys.argv[1:])
