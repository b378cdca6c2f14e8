"""``intaglio embed``: turn texts into vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ...errors import OutputError
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
    ),
)
@click.argument("artifact")
@texts_argument
@click.option(
    "--pooling",
    type=click.Choice(["last", "mean"]),
    default="last",
    show_default=True,
    help="Take the last token's vector, or the mean over all tokens.",
)
@click.option("--normalize/--no-normalize", default=True, show_default=True, help="Scale vectors to length 1.")
@click.option("--npy", type=click.Path(dir_okay=False, path_type=Path), help="Write a float32 [N, D] array here.")
@truncate_option
@loading_options
@json_option
def command(
    artifact: str,
    texts: tuple[str, ...],
    pooling: Literal["last", "mean"],
    normalize: bool,
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
    folder = find_artifact(artifact, "feature-extraction", loading.revision)
    model = load(folder, task="feature-extraction", **loading.options())

    def run(texts: list[str]) -> "NDArray[np.float32]":
        return model(texts, pooling=pooling, normalize=normalize, truncation=truncate)

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
