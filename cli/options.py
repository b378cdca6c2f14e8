"""Options that several verbs share."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..artifact import ATTENTIONS, PRECISIONS, TARGETS, TASKS, Attention, Precision, Target, Task
from ..devices.presets import DEVICES, DeviceName
from .loading import Loading

if TYPE_CHECKING:
    from ..runtime.engine.session import Device, KVCache

Function = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")

texts_argument = click.argument("texts", nargs=-1, required=True, metavar="TEXT...")

truncate_option = click.option(
    "--truncate", is_flag=True, help="Truncate texts longer than the context; without it they are an error."
)

revision_option = click.option("--revision", help="Commit, tag or branch, if ARTIFACT is a hub id.")

precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Which one, if ARTIFACT holds several precisions.  [default: that of its intaglio.json]",
)

bench_option = click.option(
    "--bench",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Show the speed in FILE, the output of `intaglio bench --json`, on the card.",
)

base_model_option = click.option(
    "--base-model",
    metavar="ID",
    help="The hub id of the source, for the card.  [default: the one it was exported from]",
)

device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where ARTIFACT runs."
)

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the CPUs available to the process]"
)

kv_cache_option = click.option(
    "--kv-cache",
    type=click.Choice(["exact", "int8", "auto"]),
    default="exact",
    show_default=True,
    help="`exact`: ARTIFACT's own type; `int8`: a quarter of the memory for keys and values, slightly less exact; "
    "`auto`: int8 for texts of 8,192 tokens or more, or where memory is short.",
)


generation_config_option = click.option(
    "--generation-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Defaults of the options above instead of ARTIFACT's, in the format of generation_config.json.",
)


adapter_option = click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="DIR[=WEIGHT]",
    help="Merge a PEFT adapter (LoRA), a folder or a hub id, into the weights; may be given several times.",
)


# Copies of the exporter's constants, whose import would load torch; a test compares them.
CALIBRATION_NAMES = ("default", "self")


@dataclass(frozen=True)
class Making:
    """The options with which an artifact is made, for ``export`` and ``quantize``."""

    task: Task
    target: Target
    device: DeviceName | None
    attention: Attention | None
    ignore_auto_map: bool
    ignore_adapter: bool
    adapters: tuple[str, ...]
    generation_config: Path | None
    ignore_generation_keys: tuple[str, ...]
    revision: str | None
    force: bool
    no_parity: bool


def accuracy_level_option(function: Function) -> Function:
    """Add ``--accuracy-level``, an int or None."""
    return _with_options(
        function,
        click.option(
            "--accuracy-level",
            type=click.Choice(["4", "0"]),
            callback=lambda context, parameter, value: None if value is None else int(value),
            help="`4` multiplies quantized weights by int8 activations, which is faster, `0` by float ones; an "
            "attribute of MatMulNBits, for target ort.  [default: 4, or what calibration favours]",
        ),
    )


def parse_bits(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return the numbers of a list such as ``4,8``; None without one.

    Raises:
        click.BadParameter: it is no list of numbers.
    """
    if value is None:
        return None
    try:
        return tuple(int(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers; write it like 4,8.") from None


bits_option = click.option(
    "--bits",
    callback=parse_bits,
    metavar="LIST",
    help="Bits that a mix chooses from, and that a quantized checkpoint's codes keep; 5 are for intaglio's kernels, "
    "and become 8 in ONNX Runtime's.  [default: 4,5,8, or 4,8 with --for and --target standard]",
)


def parse_calibration(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> "tuple[str | Path, ...] | None":
    """Return the calibration texts: names as they are, files as paths; None without any."""
    return tuple(value if value in CALIBRATION_NAMES else Path(value) for value in values) or None


def calibration_options(function: Function) -> Function:
    """Add ``--calibration``, a tuple or None, and ``--windows``, an int or None."""
    return _with_options(
        function,
        click.option(
            "--calibration",
            callback=parse_calibration,
            multiple=True,
            metavar="FILE",
            help="Calibration text in UTF-8, or a .jsonl file whose lines hold chats (`messages`, `tools`), which the "
            "model's template renders, or `text`; `default` is prose, a dozen languages and code; `self` lets the "
            "model write the text. May be given several times: the texts get equal shares.  [default: default]",
        ),
        click.option(
            "--windows", type=click.IntRange(min=1), metavar="N", help="Windows of calibration text to use, in all."
        ),
    )


dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Print the size of the weights and an estimate of time and memory, from config.json and the headers of the "
    "weights, and write nothing; for int4 and int8.",
)


def making_options(function: Function) -> Function:
    """Add ``--task`` to ``--no-parity``, given as one ``making``."""

    @wraps(function)
    def with_making(**given: Any) -> Any:
        making = Making(**{field.name: given.pop(field.name) for field in fields(Making)})
        return function(making=making, **given)

    return _with_options(
        with_making,
        click.option(
            "--task",
            type=click.Choice(["auto", *TASKS]),
            default="auto",
            show_default=True,
            help="The model's task; `auto` reads it from the architecture in config.json.",
        ),
        click.option(
            "--target",
            type=click.Choice(TARGETS),
            default="ort",
            show_default=True,
            help="`ort`: ONNX Runtime's fused operators; `standard`: only operators of ONNX opset 24.",
        ),
        click.option(
            "--for",
            "device",
            type=click.Choice(DEVICES),
            help="The device whose kernels the graph and the weights are to fit.  [default: a CPU]",
        ),
        click.option(
            "--attention",
            type=click.Choice(ATTENTIONS),
            help="Which tokens a token attends to, where the checkpoint has code of its own (`auto_map`): "
            "`bidirectional` for most embedding models.  [default: as config.json says]",
        ),
        click.option(
            "--ignore-auto-map", is_flag=True, help="The checkpoint's own code (`auto_map`) computes nothing else."
        ),
        click.option(
            "--ignore-adapter", is_flag=True, help="Leave out an adapter (LoRA) that lies beside the full weights."
        ),
        adapter_option,
        click.option(
            "--generation-config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Settings of text generation instead of the checkpoint's, in the format of generation_config.json.",
        ),
        click.option(
            "--ignore-generation-key",
            "ignore_generation_keys",
            multiple=True,
            metavar="KEY",
            help="Leave a key out of the checkpoint's generation_config.json; may be given several times.",
        ),
        click.option("--revision", help="Commit, tag or branch, if SOURCE is a hub id."),
        click.option("--force", is_flag=True, help="Replace OUT once the new artifact is complete."),
        click.option("--no-parity", is_flag=True, help="Do not compare OUT with SOURCE; its parity is `not checked`."),
    )


def parse_biases(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float] | None:
    """Return the bias for each token id, from values ``ID=BIAS``; None without any.

    Raises:
        click.BadParameter: a value has another form.
    """
    biases: dict[str, float] = {}
    for value in values:
        token, _equals, bias = value.partition("=")
        try:
            biases[str(int(token))] = float(bias)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not ID=BIAS; write it like 42=-5.") from None
    return biases or None


def sampling_options(function: Function) -> Function:
    """Add ``--max-new-tokens`` to ``--stop``."""
    return _with_options(
        function,
        click.option("--max-new-tokens", type=click.IntRange(min=1), help="Stop after this many new tokens."),
        click.option("--temperature", type=float, help="0 is greedy; above 0 samples."),
        click.option("--top-k", type=int, help="Sample from the K most likely tokens."),
        click.option("--top-p", type=float, help="Sample from the most likely tokens that reach probability P in sum."),
        click.option("--min-p", type=float, help="Exclude tokens less likely than P times the most likely one."),
        click.option("--typical-p", type=float, help="Sample from the tokens of typical information, up to P in sum."),
        click.option("--repetition-penalty", type=float, help="Above 1 makes tokens that occurred less likely."),
        click.option("--presence-penalty", type=float, help="Above 0 makes tokens that were generated less likely."),
        click.option("--frequency-penalty", type=float, help="The same, for each time that they were generated."),
        click.option("--no-repeat-ngram-size", type=click.IntRange(min=0), help="No N tokens in a row occur twice."),
        click.option(
            "--logit-bias",
            multiple=True,
            callback=parse_biases,
            metavar="ID=BIAS",
            help="Add to the logit of a token, such as 42=-5; may be given several times.",
        ),
        click.option("--min-new-tokens", type=click.IntRange(min=0), help="Do not end before this many new tokens."),
        click.option("--max-time", type=float, metavar="SECONDS", help="Stop after this time."),
        click.option(
            "--num-beams", type=click.IntRange(min=1), help="Search for the most probable text, following N at once."
        ),
        click.option("--length-penalty", type=float, help="With --num-beams: above 0 favours longer texts."),
        click.option("--seed", type=int, help="Makes sampling reproducible."),
        click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times."),
    )


def speculation_options(function: Function) -> Function:
    """Add ``--speculate`` and ``--draft``."""
    return _with_options(
        function,
        click.option(
            "--speculate/--no-speculate",
            default=None,
            help="Draft tokens from the text so far and verify several in one pass; the output is the same.  "
            "[default: if the model supports it]",
        ),
        click.option("--draft", metavar="ARTIFACT", help="Draft with a smaller model of the same vocabulary instead."),
    )


def loading_options(function: Function) -> Function:
    """Add ``--device``, ``--threads``, ``--revision`` and ``--precision``, given as one ``loading``.

    It has ``--kv-cache`` and ``--generation-config`` as well, where a verb has those options.
    """

    @wraps(function)
    def with_loading(
        *,
        device: "Device",
        threads: int | None,
        revision: str | None,
        precision: Precision | None,
        kv_cache: "KVCache" = "exact",
        generation_config: Path | None = None,
        **others: Any,
    ) -> Any:
        return function(loading=Loading(device, threads, revision, kv_cache, generation_config, precision), **others)

    return _with_options(with_loading, device_option, threads_option, revision_option, precision_option)


def _with_options(function: Function, *options: Callable[[Function], Function]) -> Function:
    """Apply the decorators so that --help lists the options in their order here."""
    for option in reversed(options):
        function = option(function)
    return function


def example(*lines: str) -> str:
    """Return the epilog of a verb's --help: its examples, one command per line."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
