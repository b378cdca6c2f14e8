"""``intaglio serve``: answer requests of OpenAI's protocol."""

import json
from pathlib import Path
from typing import Any

import click

from ....errors import IntaglioError
from ....extras import serve_extra
from ....serving.settings import Settings
from ...loading import Loading, name_artifacts
from ...options import example, kv_cache_option, loading_options
from ...show import echo, print_facts
from .listening import api_keys, host_names, is_loopback, listen
from .settings_options import settings_options


@click.command(
    short_help="Answer requests of OpenAI's protocol.",
    epilog=example(
        "intaglio serve out",
        "intaglio serve small=out/int4 large=org/name --port 9000 --slots 16 --max-queue 200",
        "INTAGLIO_API_KEY=... intaglio serve out --host 0.0.0.0",
    ),
)
@click.argument("artifacts", nargs=-1, required=True, metavar="[NAME=]ARTIFACT...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port to listen on; 0 for any that is free.",
)
@click.option(
    "--api-key",
    "given_keys",
    multiple=True,
    envvar="INTAGLIO_API_KEY",
    metavar="KEY",
    help="A key that requests need; may be given several times. Other users of the machine can read a command line: "
    "use INTAGLIO_API_KEY or --api-key-file.",
)
@click.option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with a key on each line.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which the server may be called; may be given several times.  [default: those of this machine "
    "where --host is one of them, otherwise any]",
)
@settings_options
@click.option(
    "--weight-cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A folder of yours for quantized weights as the kernels read them, which several servers of a machine share.",
)
@kv_cache_option
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when the server is ready.")
def command(
    artifacts: tuple[str, ...],
    host: str,
    port: int,
    given_keys: tuple[str, ...],
    api_key_file: Path | None,
    allowed_hosts: tuple[str, ...],
    weight_cache: Path | None,
    loading: Loading,
    as_json: bool,
    **settings: Any,
) -> None:
    """Serve each ARTIFACT, a folder or a hub id, under its NAME, by default that of the folder or repository.

    Prints the address when requests may come. SIGINT (Ctrl-C) and SIGTERM let running requests end; a second one ends
    the process at once. A line of the log on standard error says how each request was answered.
    """
    named = name_artifacts(artifacts)
    with serve_extra():
        from ....serving.app import create_app
        from ....serving.engine.models import Models, named_models
        from ....serving.http.logs import configure_logs
        from ....serving.run import make_server
    made = Settings(
        api_keys=api_keys(given_keys, api_key_file), allowed_hosts=host_names(host, allowed_hosts), **settings
    )
    served = named_models(named, loading.revision, loading.precision)
    with listen(host, port) as listening:
        if not is_loopback(host) and not made.api_keys:
            echo(
                f"Warning: other machines can reach {host}, and there is no --api-key: whoever reaches it can use the "
                "models",
                err=True,
            )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"

        def on_ready() -> None:
            if as_json:
                echo(json.dumps({"address": address, "models": list(served)}))
                return
            models = [f"{name} ({model.manifest.task}, {model.manifest.precision})" for name, model in served.items()]
            print_facts([("address", address), *zip(["models", *[""] * len(models)], models, strict=False)])

        configure_logs()
        app = create_app(Models(served, made, {**loading.options(), "weight_cache": weight_cache}), made)
        make_server(app, on_ready).run(sockets=[listening])
    failure = app.state.server.failure
    if isinstance(failure, IntaglioError):
        raise failure
    if failure is not None:
        raise RuntimeError("the models cannot be loaded") from failure
