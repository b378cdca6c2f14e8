"""The settings of text generation: their names, the values that each can have, and those of a checkpoint.

A call and ``generation_config.json`` give the same settings, by the names that transformers has for them, and both are
checked here. The exporter checks a checkpoint's file before it works, the runtime reads it when an artifact is loaded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from .json_fields import shown
from .json_file import read_object
from .regular_file import is_there

FILE = "generation_config.json"
CONFIG = "config.json"
LARGEST = 3.4e38
"""The magnitude of numbers, which are float32 where they meet logits."""

Read = Callable[[Any], Any]
User = Literal["all", "sampling", "beams"]


@dataclass(frozen=True)
class Setting:
    """The values of a setting.

    Attributes:
        wanted: what a value must be, in words.
        read: returns a value in its normal form; raises ValueError for one that is not allowed.
        user: what uses the setting: a draw (``sampling``), a beam search (``beams``), or both and the greedy choice.
        ids: returns the token ids in a value of normal form.
        known: returns a value of normal form without what has token ids beyond a vocabulary, which never occur;
            None where such an id is an error.
    """

    wanted: str
    read: Read
    user: User = "all"
    ids: Callable[[Any], Iterable[int]] = lambda value: ()
    known: Callable[[Any, int], Any] | None = None


def _number(low: float = -inf, high: float = inf, *, above: float | None = None, finite: bool = True) -> Read:
    """Return a reader of numbers from ``low`` to ``high``, or greater than ``above``."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError
        try:
            number = float(value)
        except OverflowError:
            raise ValueError from None
        if isnan(number) or number > LARGEST or (number < -LARGEST and (finite or number > -inf)):
            raise ValueError
        if not low <= number <= high or (above is not None and number <= above):
            raise ValueError
        return number

    return read


def _count(least: int) -> Read:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError
        return int(value)

    return read


_token = _count(0)
_bias = _number(finite=False)


def _tokens(value: Any) -> tuple[int, ...]:
    """Return one token id or several as a tuple."""
    if isinstance(value, Integral):
        return (_token(value),)
    return tuple(map(_token, _sequence(value)))


def _token_lists(value: Any) -> tuple[tuple[int, ...], ...]:
    found = tuple(tuple(map(_token, _sequence(one))) for one in _sequence(value))
    if not all(found):
        raise ValueError
    return found


def _biases(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Return biases as pairs of a sequence of token ids and a number, from a mapping or from pairs."""
    pairs = list(value.items()) if isinstance(value, Mapping) else [_sequence(pair) for pair in _sequence(value)]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError
    sequences = _token_lists([ids for ids, _ in pairs])
    return tuple(zip(sequences, (_bias(bias) for _, bias in pairs), strict=True))


def _logit_bias(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Return biases of single tokens. JSON has keys of text, so an id may be text as well."""
    if not isinstance(value, Mapping):
        raise ValueError
    pairs = [(int(token) if isinstance(token, str) else token, bias) for token, bias in value.items()]
    return tuple(((_token(token),), _bias(bias)) for token, bias in pairs)


def _decay(value: Any) -> tuple[int, float]:
    start, factor = _sequence(value)
    return _count(0)(start), float(_number(above=0)(factor))


def _early_stopping(value: Any) -> Any:
    if isinstance(value, bool) or value == "never":
        return value
    raise ValueError


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else _sequence(value)
    if any(not isinstance(text, str) or not text for text in texts):
        raise ValueError
    return tuple(texts)


def _sequence(value: Any) -> Sequence[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError
    return list(value)


def _known_tokens(value: tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    return tuple(token for token in value if token < vocab_size)


def _known_lists(value: tuple[tuple[int, ...], ...], vocab_size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(ids for ids in value if max(ids) < vocab_size)


def _known_biases(value: tuple[tuple[tuple[int, ...], float], ...], vocab_size: int) -> Any:
    return tuple(pair for pair in value if max(pair[0]) < vocab_size)


def _flat(value: Iterable[Iterable[int]]) -> list[int]:
    return [token for ids in value for token in ids]


def _biased(value: Iterable[tuple[Iterable[int], float]]) -> list[int]:
    return [token for ids, _ in value for token in ids]


_SHARE = "above 0 and at most 1"
_IDS = "a token id or a list of them"
_ID_LISTS = "a list of lists of token ids"
_FEW = "a whole number, 0 or more"
_SOME = "a whole number, 1 or more"
_token_set = dict[str, Any](ids=tuple, known=_known_tokens)

SETTINGS: Mapping[str, Setting] = {
    "max_new_tokens": Setting(_SOME, _count(1)),
    "max_length": Setting(_SOME, _count(1)),
    "min_new_tokens": Setting(_FEW, _count(0)),
    "min_length": Setting(_FEW, _count(0)),
    "max_time": Setting("a number of seconds above 0", _number(above=0)),
    "eos_token_id": Setting(_IDS, _tokens, **_token_set),
    "stop_strings": Setting("text or a list of texts", _texts),
    "temperature": Setting("0 or more", _number(0)),
    "top_h": Setting(_SHARE, _number(0, 1, above=0), "sampling"),
    "top_k": Setting(_FEW, _count(0), "sampling"),
    "top_p": Setting(_SHARE, _number(0, 1, above=0), "sampling"),
    "min_p": Setting("between 0 and 1", _number(0, 1), "sampling"),
    "typical_p": Setting(_SHARE, _number(0, 1, above=0), "sampling"),
    "epsilon_cutoff": Setting("between 0 and 1", _number(0, 1), "sampling"),
    "eta_cutoff": Setting("between 0 and 1", _number(0, 1), "sampling"),
    "repetition_penalty": Setting("above 0", _number(above=0)),
    "presence_penalty": Setting("between -2 and 2", _number(-2, 2)),
    "frequency_penalty": Setting("between -2 and 2", _number(-2, 2)),
    "no_repeat_ngram_size": Setting(_FEW, _count(0)),
    "bad_words_ids": Setting(_ID_LISTS, _token_lists, ids=_flat, known=_known_lists),
    "sequence_bias": Setting(
        "a mapping from tuples of token ids to numbers, or pairs of both", _biases, ids=_biased, known=_known_biases
    ),
    "logit_bias": Setting("a mapping from token ids to numbers", _logit_bias, ids=_biased, known=_known_biases),
    "suppress_tokens": Setting(_IDS, _tokens, **_token_set),
    "begin_suppress_tokens": Setting(_IDS, _tokens, **_token_set),
    "forced_bos_token_id": Setting("a token id", _token, ids=lambda token: [token]),
    "forced_eos_token_id": Setting(_IDS, _tokens, ids=tuple),
    "exponential_decay_length_penalty": Setting("a list of a whole number and a number above 0", _decay),
    "num_beams": Setting(_SOME, _count(1)),
    "length_penalty": Setting("a number", _number(), "beams"),
    "early_stopping": Setting("True, False or 'never'", _early_stopping, "beams"),
    "renormalize_logits": Setting("True or False", _boolean, "beams"),
}

UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "dola_layers": (),
    "guidance_scale": (1,),
    "encoder_repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "constraints": ([],),
    "force_words_ids": ([],),
    "token_healing": (False,),
    "watermarking_config": (),
}
"""Keys that change the tokens in ways that intaglio does not support, with the values that switch them off."""

CALLS_ONLY = frozenset({"presence_penalty", "frequency_penalty", "logit_bias"})
"""Settings that transformers does not have, so that it ignores them in a file."""

KEYS = frozenset({*SETTINGS, *UNSUPPORTED, "do_sample"}) - CALLS_ONLY
"""The keys that are read from a file."""

INERT_KEYS = frozenset(
    """transformers_version _from_model_config pad_token_id bos_token_id decoder_start_token_id use_cache
    num_return_sequences return_dict_in_generate output_attentions output_hidden_states output_scores output_logits
    remove_invalid_values cache_implementation cache_config max_cache_len diversity_penalty""".split()
)
"""Keys of generation_config.json that change no token here."""


def read_setting(name: str, value: Any) -> Any:
    """Return the value of a call's setting in its normal form.

    Raises:
        UsageError: it is not one that the setting can have.
    """
    try:
        return SETTINGS[name].read(value)
    except (ValueError, TypeError):
        raise UsageError(f"{name} must be {SETTINGS[name].wanted}, not {shown(value)}") from None


def check_ids(name: str, value: Any, vocab_size: int) -> None:
    """Check that the token ids in a setting of normal form are in the vocabulary.

    Raises:
        UsageError: one is not.
    """
    wrong = [token for token in SETTINGS[name].ids(value) if token >= vocab_size]
    if wrong:
        raise UsageError(f"{name} {wrong[0]} is out of range, the model's ids are 0 to {vocab_size - 1}")


@dataclass(frozen=True)
class CheckpointSettings:
    """The settings of a checkpoint.

    Attributes:
        path: the file that has them.
        values: the settings that can be used, by name, in their normal form. ``temperature`` is 0 where the file does
            not set ``do_sample``.
        problems: for each key whose value cannot be used, what is wrong with it.
    """

    path: Path
    values: Mapping[str, Any]
    problems: Mapping[str, str]

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        found: tuple[int, ...] = self.values.get("eos_token_id", ())
        return found

    def applied_problems(self, given: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Return the problems of the keys that apply to a call with the settings in ``given``.

        Filters of sampling do not apply to a greedy choice, nor the settings of a beam search without beams.
        """
        given = given or {}
        merged = {**self.values, **given}
        samples, searches = merged.get("temperature", 0) > 0, merged.get("num_beams", 1) > 1
        applied = {"all": True, "sampling": samples, "beams": searches}
        users = {key: SETTINGS[key].user if key in SETTINGS else "all" for key in self.problems}
        return {key: why for key, why in self.problems.items() if key not in given and applied[users[key]]}


def checkpoint_settings(folder: Path, vocab_size: int) -> CheckpointSettings:
    """Read the settings of a checkpoint or an artifact.

    They are in generation_config.json; where there is none, transformers takes the keys of the same names in
    config.json. End tokens that generation_config.json does not name are config.json's.

    Raises:
        ValueError: a file cannot be read or is not a JSON object. The message names it.
    """
    path, values = own_settings(folder)
    if values.get("eos_token_id") is None:
        values["eos_token_id"] = read_object(folder / CONFIG).get("eos_token_id")
    return parse_settings(path, values, vocab_size)


def own_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file that has the settings of a checkpoint, and the settings as they are there.

    Raises:
        ValueError: as ``checkpoint_settings``.
    """
    path = folder / FILE
    if is_there(path):
        return path, read_object(path)
    config = read_object(folder / CONFIG)
    return folder / CONFIG, {key: value for key, value in config.items() if key in KEYS}


def parse_settings(path: Path, raw: Mapping[str, Any], vocab_size: int) -> CheckpointSettings:
    """Return the settings in the object of a file; ``path`` is its name in messages."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for key, value in raw.items():
        if value is None:
            continue
        if key in UNSUPPORTED and value not in UNSUPPORTED[key]:
            problems[key] = f"{key} is {shown(value)}, which intaglio does not support"
        elif key in SETTINGS and key in KEYS:
            setting = SETTINGS[key]
            try:
                values[key] = _within(setting, setting.read(value), vocab_size)
            except (ValueError, TypeError):
                problems[key] = f"{key} is {shown(value)}, expected {setting.wanted}"
    if not raw.get("do_sample"):
        problems.pop("temperature", None)
        values["temperature"] = 0.0
    elif "temperature" not in problems:
        values.setdefault("temperature", 1.0)
    if values.get("num_beams", 1) > 1 and values.get("temperature"):
        count = values.pop("num_beams")
        problems["num_beams"] = f"num_beams is {count} with do_sample, which intaglio does not support"
    return CheckpointSettings(path, values, problems)


def _within(setting: Setting, value: Any, vocab_size: int) -> Any:
    """Return a value without what names token ids beyond the vocabulary.

    Raises:
        ValueError: the setting has no meaning without them.
    """
    if all(token < vocab_size for token in setting.ids(value)):
        return value
    if setting.known is None:
        raise ValueError
    return setting.known(value, vocab_size)
