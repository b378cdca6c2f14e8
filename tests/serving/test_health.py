"""The paths that say how a server is and what it serves."""

import httpx
from intaglio.tests.serving.artifacts import ARTIFACTS


def test_a_running_server_is_healthy_and_ready(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    assert http.get("/ready").json() == {"status": "ready"}


def test_the_models_are_listed(http: httpx.Client) -> None:
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == [*ARTIFACTS]


def test_a_wrong_path_is_an_error_in_the_protocols_form(http: httpx.Client) -> None:
    answer = http.get("/v2/nothing")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {"message": "GET /v2/nothing: Not Found", "type": "invalid_request_error", "param": None, "code": None}
    }
