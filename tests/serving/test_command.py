"""``intaglio serve`` as a process: it starts, answers, and ends when it is told to."""

import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from intaglio.tests.serving.process import COMMAND, ENVIRONMENT, TIMEOUT, serving
from intaglio.tests.serving.raw import connection, read_answer


def test_it_answers_and_sigterm_lets_the_answer_end(artifacts: dict[str, Path]) -> None:
    with serving(artifacts["qwen2"], INTAGLIO_API_KEY="a-key b-key") as (process, address):
        assert httpx.get(f"{address}/v1/models").status_code == 401
        with httpx.Client(base_url=address, headers={"Authorization": "Bearer b-key"}) as client:
            assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["qwen2"]
            assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
            body = {"model": "qwen2", "prompt": "In 1942", "max_tokens": 60, "stream": True}
            with client.stream("POST", "/v1/completions", json=body) as answer:
                lines = answer.iter_lines()
                assert next(lines).startswith("data: {")
                process.send_signal(signal.SIGTERM)
                assert [line for line in lines if line][-1] == "data: [DONE]"
        _, log = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert "path=/v1/completions status=200 " in log
    assert "a-key" not in log
    assert "b-key" not in log
    assert "1942" not in log
    assert "Traceback" not in log


def test_a_second_signal_ends_it_at_once(artifacts: dict[str, Path]) -> None:
    with serving(artifacts["qwen2"]) as (process, address), connection(address) as connected:
        # Half of a request: what keeps the server from ending by itself.
        connected.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in log


def test_an_idle_server_ends_with_sigint(artifacts: dict[str, Path]) -> None:
    with serving(f"a={artifacts['qwen2']}", f"b={artifacts['sst2']}", "--lazy") as (process, address):
        assert [model["id"] for model in httpx.get(f"{address}/v1/models").json()["data"]] == ["a", "b"]
        with connection(address) as connected, connected.makefile("rb") as answers:
            connected.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(answers).status == 200
            process.send_signal(signal.SIGINT)  # while a connection is open
            process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


@pytest.mark.parametrize("lazy", ["--preload", "--lazy"])
def test_a_model_that_cannot_be_loaded(artifacts: dict[str, Path], tmp_path: Path, lazy: str) -> None:
    """Preloaded, it ends the server with its error; lazy, it is the error of the requests for it."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in artifacts["qwen2"].rglob("*"):
        copy = broken / path.relative_to(artifacts["qwen2"])
        if path.is_dir():
            copy.mkdir()
        else:
            copy.write_bytes(bytes(path.stat().st_size) if path.suffix == ".onnx" else path.read_bytes())
    if lazy == "--lazy":
        with serving(broken, lazy) as (_, address):
            answer = httpx.post(f"{address}/v1/completions", json={"prompt": "a"}, timeout=TIMEOUT)
            assert answer.status_code == 503
            assert str(tmp_path) not in answer.text
        return
    done = subprocess.run([*COMMAND, broken, "--port", "0"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"Error: {broken}")
    assert done.stdout == ""
