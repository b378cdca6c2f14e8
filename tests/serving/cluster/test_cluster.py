"""Two replicas on a local cluster of two nodes: answers, streams, routing, faults, autoscaling."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from intaglio import load
from intaglio.runtime.generation.generator import TextGenerator
from intaglio.tests.serving.cluster.local_cluster import LocalCluster, wait_until

pytestmark = pytest.mark.slow

PROMPTS = [f"{subject} {verb}" for subject in ("The temple", "A river", "My brother") for verb in ("was", "is", "saw")]
STORY = "The museum has a map of the old town, and a list of the houses that were built there. " * 6


@pytest.fixture(scope="module")
def library(artifacts: dict[str, Path]) -> Iterator[TextGenerator]:
    with load(artifacts["qwen2"], task="text-generation", threads=1) as generator:
        yield generator


@pytest.fixture(scope="module")
def deployed(cluster: LocalCluster, artifacts: dict[str, Path]) -> LocalCluster:
    cluster.deploy(**config(artifacts, replicas=2))
    return cluster


@pytest.fixture
def http(deployed: LocalCluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=deployed.address, timeout=120) as client:
        yield client


def config(artifacts: dict[str, Path], **values: Any) -> dict[str, Any]:
    settings = {"slots": 4, "max_queue": 32}
    return {"artifacts": {"qwen2": str(artifacts["qwen2"])}, "settings": settings, "health_period": 0.5, **values}


def complete(http: httpx.Client, prompt: str, tokens: int = 24, **others: Any) -> dict[str, Any]:
    body = {"model": "qwen2", "prompt": prompt, "max_tokens": tokens, "temperature": 0, **others}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(http: httpx.Client, prompt: str, tokens: int, begun: Any = None) -> list[dict[str, Any]]:
    """Return the events of a streamed completion; ``begun()`` is called after the first one."""
    body = {"model": "qwen2", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    found: list[dict[str, Any]] = []
    with http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        lines = (line for line in answer.iter_lines() if line)
        for line in lines:
            assert line.startswith("data: ")
            if line == "data: [DONE]":
                assert list(lines) == []  # the connection has ended well
                return found
            found.append(json.loads(line.removeprefix("data: ")))
            if begun is not None:
                begun()
                begun = None
    raise AssertionError("the stream has no [DONE]")


def text_of(found: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["text"] for event in found if event.get("choices"))


def test_answers_of_two_replicas_are_the_librarys(
    deployed: LocalCluster, http: httpx.Client, library: TextGenerator
) -> None:
    before = deployed.samples("vllm:request_success_total")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda prompt: complete(http, prompt), PROMPTS * 2))
    expected = [library.generate(prompt, max_new_tokens=24, temperature=0).text for prompt in PROMPTS]
    assert [answer["choices"][0]["text"] for answer in answers] == expected * 2
    after = deployed.samples("vllm:request_success_total")
    gained = [after[replica] - before.get(replica, 0) for replica in after]
    assert len(gained) == 2
    assert min(gained) >= 4
    assert sum(gained) == len(answers)


def test_streams_come_while_they_are_made(http: httpx.Client, library: TextGenerator) -> None:
    found = events(http, PROMPTS[0], 24)
    assert len(found) > 10
    assert text_of(found) == library.generate(PROMPTS[0], max_new_tokens=24, temperature=0).text


def test_errors_are_the_servers(http: httpx.Client) -> None:
    answer = http.post("/v1/completions", json={"model": "qwen2", "prompt": "x", "max_tokens": -1})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"
    assert http.get("/nothing").status_code == 404


def test_a_conversation_stays_on_the_replica_that_has_read_it(deployed: LocalCluster, http: httpx.Client) -> None:
    before = deployed.samples("vllm:prompt_tokens_total")
    prompt, cached = STORY, []
    for _ in range(5):
        answer = complete(http, prompt, tokens=8)
        prompt += answer["choices"][0]["text"] + " and then"
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    after = deployed.samples("vllm:prompt_tokens_total")
    assert [replica for replica in after if after[replica] > before.get(replica, 0)] != []
    assert sum(after[replica] > before.get(replica, 0) for replica in after) == 1
    assert min(cached[1:]) > 100
    assert cached[1:] == sorted(cached[1:])


def test_a_killed_replica_loses_no_request_that_had_not_begun(
    deployed: LocalCluster, http: httpx.Client, library: TextGenerator
) -> None:
    wait_until(lambda: len(deployed.replicas()) == 2, "two replicas run")
    prompts = [f"{prompt} {number}" for number in range(3) for prompt in PROMPTS]
    victims: list[psutil.Process] = []

    begun = count(1)

    def kill() -> None:
        if next(begun) == 6:  # of the two replicas each has begun some: it has four slots
            victims.append(next(iter(deployed.replicas().values())))
            victims[0].kill()

    with ThreadPoolExecutor(len(prompts) * 2) as pool:
        streams = [pool.submit(events, http, prompt, 64, kill) for prompt in prompts]
        answers = [pool.submit(complete, http, prompt, 16) for prompt in prompts]
        texts = [answer.result()["choices"][0]["text"] for answer in answers]
        found = [stream.result() for stream in streams]
    assert texts == [library.generate(prompt, max_new_tokens=16, temperature=0).text for prompt in prompts]
    broken = 0
    for prompt, of_stream in zip(prompts, found, strict=True):
        expected = library.generate(prompt, max_new_tokens=64, temperature=0).text
        if "error" in of_stream[-1]:
            broken += 1
            assert of_stream[-1]["error"]["code"] == "replica_lost"
            assert 0 < len(text_of(of_stream[:-1])) < len(expected)
            assert expected.startswith(text_of(of_stream[:-1]))
        else:
            assert text_of(of_stream) == expected
    assert 0 < broken < len(prompts)
    wait_until(
        lambda: len(deployed.replicas()) == 2 and victims[0].pid not in deployed.replicas(), "a new replica runs"
    )


def test_a_replica_whose_engine_has_ended_is_replaced(
    deployed: LocalCluster, http: httpx.Client, library: TextGenerator
) -> None:
    wait_until(lambda: len(deployed.samples("vllm:num_requests_running")) == 2, "two replicas answer")
    before = set(deployed.replicas())
    http.get("/break")
    with ThreadPoolExecutor(8) as pool:  # those that the broken replica receives are sent to the other one
        answers = list(pool.map(lambda prompt: complete(http, prompt, 16), PROMPTS))
    expected = [library.generate(prompt, max_new_tokens=16, temperature=0).text for prompt in PROMPTS]
    assert [answer["choices"][0]["text"] for answer in answers] == expected
    wait_until(lambda: len(before & set(deployed.replicas())) == 1, "the broken replica has ended")
    wait_until(lambda: len(deployed.samples("vllm:num_requests_running")) == 2, "two replicas answer")


def test_load_starts_a_second_replica(cluster: LocalCluster, artifacts: dict[str, Path]) -> None:
    scaling = {"min": 1, "max": 2, "target": 2, "up_after": 0.5, "down_after": 600}
    cluster.deploy(**config(artifacts, replicas=1))
    cluster.deploy(**config(artifacts, autoscaling=scaling))  # begins with the replicas that are there
    wait_until(lambda: len(cluster.replicas()) == 1, "one replica runs")
    with httpx.Client(base_url=cluster.address, timeout=120) as client, ThreadPoolExecutor(12) as pool:
        ended = False

        def load() -> int:
            count = 0
            while not ended:
                complete(client, "The temple was", 32)
                count += 1
            return count

        clients = [pool.submit(load) for _ in range(12)]
        try:
            wait_until(lambda: len(cluster.samples("vllm:num_requests_running")) == 2, "a second replica answers")
        finally:
            ended = True
        assert min(one.result() for one in clients) > 0
