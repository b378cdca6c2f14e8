"""The checkpoint's defaults of generation, from generation_config.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ArtifactError, UnsupportedError, UsageError
from ...json_fields import INT32, is_integer, is_number, shown
from ..folder import read_json
from ..text.tokenizer import Tokenizer
from .sampler import SamplingSettings

# Keys that intaglio does not support, with the values that switch them off.
INEXPRESSIBLE: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "dola_layers": (),
    "guidance_scale": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "bad_words_ids": ([],),
    "sequence_bias": ({}, []),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "exponential_decay_length_penalty": (),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "watermarking_config": (),
}


@dataclass(frozen=True)
class GenerationDefaults:
    """The settings that apply where the caller gives none.

    ``max_length`` counts the prompt. ``max_new_tokens`` does not, and takes precedence.
    ``sampling.temperature`` is 0 unless generation_config.json sets ``do_sample``.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    eos_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    max_length: int | None = None


def read_defaults(folder: Path, tokenizer: Tokenizer | None) -> GenerationDefaults:
    """Read generation_config.json; end tokens also from config.json or tokenizer_config.json, in that order.

    Raises:
        ArtifactError: a value of the wrong kind or out of its range.
        UnsupportedError: a key that changes the tokens in a way that intaglio does not support.
    """
    path = folder / "generation_config.json"
    config = read_json(path)
    for key, neutral in INEXPRESSIBLE.items():
        value = config.get(key)
        if value is not None and value not in neutral:
            raise UnsupportedError(
                f"{path}: {key} is {shown(value)}, which intaglio does not support; "
                "remove the key from the checkpoint's file and export the model again"
            )
    temperature = _number(path, config, "temperature", 1.0)
    try:
        sampling = SamplingSettings(
            temperature=temperature if config.get("do_sample") else 0.0,
            top_k=_count(path, config, "top_k", least=0) or 0,
            top_p=_number(path, config, "top_p", 1.0),
            min_p=_number(path, config, "min_p", 0.0),
            repetition_penalty=_number(path, config, "repetition_penalty", 1.0),
        )
    except UsageError as error:
        raise ArtifactError(f"{path}: {error}; correct the checkpoint's file and export the model again") from None
    end = config.get("eos_token_id")
    if end is None:
        end = read_json(folder / "config.json").get("eos_token_id")
    if end is None and tokenizer is not None:
        end = tokenizer.eos_token_id
    return GenerationDefaults(
        sampling=sampling,
        eos_token_ids=_token_ids(path, end),
        stop=_stops(path, config.get("stop_strings")),
        max_new_tokens=_count(path, config, "max_new_tokens"),
        max_length=_count(path, config, "max_length"),
    )


def _number(path: Path, config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key)
    if value is None:
        return default
    if not is_number(value):
        raise _wrong(path, key, value, "a number")
    return value


def _count(path: Path, config: dict[str, Any], key: str, least: int = 1) -> int | None:
    value = config.get(key)
    if value is not None and not is_integer(value, least, INT32):
        raise _wrong(path, key, value, f"a whole number, {least} or more")
    return value


def _token_ids(path: Path, value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(is_integer(one, -INT32, INT32) for one in ids):
        raise _wrong(path, "eos_token_id", value, "a token id or a list of them")
    return tuple(ids)


def _stops(path: Path, value: Any) -> tuple[str, ...]:
    stops = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(one, str) or not one for one in stops):
        raise _wrong(path, "stop_strings", value, "text or a list of texts")
    return tuple(stops)


def _wrong(path: Path, key: str, value: Any, wanted: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: {key} is {shown(value)}, expected {wanted}; correct the checkpoint's file and export again"
    )
