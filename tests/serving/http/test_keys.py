"""API keys."""

from hashlib import sha256

import httpx
import pytest
from intaglio.serving.settings import Settings
from intaglio.tests.serving.http.conftest import serve_http

KEYS = ("first-key", "schlüssel")


def test_a_request_needs_one_of_the_keys() -> None:
    with serve_http(api_keys=KEYS) as address, httpx.Client(base_url=address) as client:
        for key in KEYS:
            answer = client.post("/echo", json={}, headers={b"Authorization": f"Bearer {key}".encode()})
            assert answer.status_code == 200
            assert answer.json()["client"] == sha256(key.encode()).hexdigest()[:8]
        for path in ("/v1/models", "/metrics", "/none"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"] == {
                "message": "the request has no API key; send it as Authorization: Bearer KEY",
                "type": "authentication_error",
                "param": None,
                "code": None,
            }
        for wrong in ("Bearer first-ke", "Bearer first-key2", "Bearer", "first-key", "Basic first-key", "Bearer a b"):
            answer = client.post("/echo", json={}, headers={"Authorization": wrong})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.json()["error"]["message"] == "the API key is not one of this server's"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_the_state_of_the_server_needs_no_key(path: str) -> None:
    with serve_http(api_keys=KEYS) as address:
        assert httpx.get(f"{address}{path}").status_code == 200


def test_settings_do_not_show_their_keys() -> None:
    assert "first-key" not in repr(Settings(api_keys=KEYS))
