"""``intaglio embed``: turn texts into vectors."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import OutputError
from ...files.embedding import POOLINGS, Pooling
from ..loading import Loading, find_artifact
from ..options import example, json_option, loading_options, texts_argument, truncate_option
from ..show import echo, print_json
from ..texts import read_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@click.command(
    short_help="Turn texts into vectors.",
    epilog=example(
        "intaglio embed out 'a text' 'another' --json",
        "intaglio embed out - --npy vectors.npy < lines.txt",
        "intaglio embed out 'Where is the tower?' --prompt-name query --json",
    ),
)
@click.argument("artifact")
@texts_argument
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    help="How one vector is made of those of the tokens.  [default: the model's own, otherwise last]",
)
@click.option(
    "--normalize/--no-normalize",
    default=None,
    help="Scale vectors to length 1.  [default: the model's own, otherwise --normalize]",
)
@click.option("--prompt", metavar="TEXT", help="A text to put before each TEXT.")
@click.option("--prompt-name", metavar="NAME", help="One of the model's own prompts, such as `query`.")
@click.option("--npy", type=click.Path(dir_okay=False, path_type=Path), help="Write a float32 [N, D] array here.")
@truncate_option
@loading_options
@json_option
def command(
    artifact: str,
    texts: tuple[str, ...],
    pooling: Pooling | None,
    normalize: bool | None,
    prompt: str | None,
    prompt_name: str | None,
    npy: Path | None,
    truncate: bool,
    loading: Loading,
    as_json: bool,
) -> None:
    """Turn each TEXT into a vector with the feature-extraction model in ARTIFACT.

    Prints one vector per line, tab-separated. A single `-` reads texts from standard input, one per line.
    """
    from ...runtime import load

    inputs = read_texts(texts)
    folder = find_artifact(artifact, "feature-extraction", loading)
    model = load(folder, task="feature-extraction", **loading.options())

    def run(texts: list[str]) -> "NDArray[np.float32]":
        return model(
            texts,
            prompt=prompt,
            prompt_name=prompt_name,
            pooling=pooling,
            normalize=normalize,
            truncation=truncate,
        )

    vectors = inputs.results(run, skip=not model.tokenizer.encode(""))
    if npy is not None:
        import numpy

        widths = {vector.size for vector in vectors if vector is not None} or {model.manifest.model.hidden_size}
        nothing = numpy.full(widths.pop(), numpy.nan, dtype=numpy.float32)
        array = numpy.stack([nothing if vector is None else vector for vector in vectors])
        try:
            with npy.open("wb") as stream:
                numpy.save(stream, array)
        except OSError as error:
            raise OutputError(f"{npy}: cannot be written ({error.strerror}); choose another --npy") from None
    elif as_json:
        rows = [None if vector is None else vector.tolist() for vector in vectors]
        print_json([{"text": text, "vector": row} for text, row in zip(inputs.values, rows, strict=True)])
    else:
        for vector in vectors:
            echo("\t".join(f"{value:.7g}" for value in (() if vector is None else vector)))
