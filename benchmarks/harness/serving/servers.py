"""The servers that are compared, as processes that listen on a free port.

Each gets what its documentation recommends for many users: as many slots as there are clients, continuous batching,
flash attention, and kept prompts. llama.cpp's repacks its weights for the processor that it was built for.
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...artifacts.environments import process_environment

INTAGLIO, LLAMA = "intaglio", "llama.cpp"
START_SECONDS = 180.0


@dataclass(frozen=True)
class Room:
    """How many requests a server decodes at once, and the most tokens of each."""

    slots: int
    max_length: int
    threads: int


@dataclass(frozen=True)
class Server:
    """A server: its name, its model, the command that starts it with some room on a port, and the path that answers 200
    once the model is loaded.
    """

    name: str
    model: Path
    command: Callable[[Room, int], list[str]]
    variables: Mapping[str, str]
    ready: str


def intaglio(artifact: Path) -> Server:
    """Return ``intaglio serve`` with an artifact."""

    def command(room: Room, port: int) -> list[str]:
        program = [sys.executable, "-m", "intaglio.cli.main", "serve", f"model={artifact}", "--port", str(port)]
        limits = ["--slots", str(room.slots), "--max-length", str(room.max_length), "--threads", str(room.threads)]
        return [*program, *limits]

    return Server(INTAGLIO, artifact, command, {}, "/ready")


def llama(gguf: Path, python: Path) -> Server:
    """Return llama.cpp's server with a GGUF file; ``python`` is the interpreter of the environment that has it."""
    packages = Path(_output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]))
    binary = packages / "bin" / "llama-server"

    def command(room: Room, port: int) -> list[str]:
        threads = ["--threads", str(room.threads), "--threads-batch", str(room.threads)]
        slots = ["--parallel", str(room.slots), "--ctx-size", str(room.slots * room.max_length), "--cont-batching"]
        cache = ["--flash-attn", "on", "--cache-prompt", "--cache-reuse", "256", "--cache-ram", "4096"]
        plain = ["--alias", "model", "--jinja", "--no-ui", "--log-verbosity", "1"]
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return [str(binary), "--model", str(gguf), *threads, *slots, *cache, *plain, *where]

    return Server(LLAMA, gguf, command, {"LD_LIBRARY_PATH": str(packages / "lib")}, "/health")


@contextmanager
def running(server: Server, room: Room, log: Path) -> Iterator[str]:
    """Start a server and yield its address once it is ready; end it after that.

    Raises:
        SystemExit: it does not start; with the end of its log.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    variables = {"OMP_NUM_THREADS": str(room.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = process_environment(**variables, **server.variables)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        process = subprocess.Popen(server.command(room, port), stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(f"{address}{server.ready}", process, server.name, log)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise SystemExit(f"{name} does not start:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
