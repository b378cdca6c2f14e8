"""The measurement of ``intaglio bench --serve``."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from ...errors import DependencyError, UsageError
from ..progress import progress
from ..show import print_json
from .options import REQUESTS, ServerLoad, check_load_options
from .report import errors, loop, print_figures

PACKAGES = {"httpx", "matplotlib", "numpy"}
PROMPT_TOKENS, NEW_TOKENS = 128, 64


def bench_server(load: ServerLoad, prompt_tokens: int | None, new_tokens: int | None, as_json: bool) -> None:
    """Measure a server, and print and draw the figures.

    Raises:
        DependencyError: httpx or matplotlib is not installed.
        UsageError: options exclude each other, or the server does not answer.
    """
    check_load_options(load, prompt_tokens)
    with _bench_extra():
        import asyncio

        from ...serving.load.measure import Texts, measure
        from ...serving.load.prompts import read_prompts
        from ...serving.load.schedule import Load
        from ...serving.load.statistics import figures

        if load.plot is not None:
            import_module(
                "...serving.load.plot", __package__
            )  # matplotlib is missing before the measurement, not after
    assert load.serve is not None
    clients = load.clients or 1
    seed = load.seed or 0
    schedule = Load(
        rate=load.rate,
        clients=clients,
        requests=None if load.duration is not None else load.requests or REQUESTS,
        seconds=load.duration,
        warmup=clients if load.warmup is None else load.warmup,
        seed=seed,
    )
    texts = Texts(
        prompt_tokens or PROMPT_TOKENS,
        load.prefix_tokens or 0,
        new_tokens or NEW_TOKENS,
        None if load.dataset is None else read_prompts(load.dataset, seed),
    )
    with progress() as bars:
        measured = asyncio.run(
            measure(
                load.serve,
                schedule,
                texts,
                model=load.model,
                chat=not load.completions,
                api_key=load.api_key,
                timeout=load.timeout or 600.0,
                report=lambda done, total: bars("calls", done, total or done),
            )
        )
    document = {
        "server": load.serve,
        "model": measured.model,
        "rate": load.rate,
        "clients": None if load.rate is not None else clients,
        "new_tokens": texts.new_tokens,
        "prefix_tokens": texts.prefix_tokens,
        "seed": seed,
        **figures(measured.run),
        "client_cpu": measured.client_cpu,
    }
    if load.plot is not None:
        from ...serving.load.plot import draw

        draw(load.plot, f"{measured.model}: {loop(document)}", measured.run)
    if as_json:
        print_json(document)
    else:
        print_figures(document)
    if not document["completed"]:
        raise UsageError(f"{load.serve} answered none of {document['requests']} requests: {errors(document)}")


@contextmanager
def _bench_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise DependencyError(
            f"--serve needs the package {error.name}, which is not installed; "
            "install it with: pip install 'intaglio[bench]'"
        ) from None
