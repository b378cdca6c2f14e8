"""Who may come in, who is refused with which message, and when they may try again."""

import pytest
from intaglio.serving.engine.admission import Admission
from intaglio.serving.errors import ApiError


def refusal(admission: Admission, count: int = 1, client: str = "") -> ApiError:
    before = admission.open
    with pytest.raises(ApiError) as found:
        admission.enter(count, client)
    assert admission.open == before
    return found.value


def test_as_many_wait_as_the_queue_holds_beyond_those_with_a_place() -> None:
    admission = Admission("qwen", places=2, max_queue=1, per_key=None)
    for _ in range(3):
        admission.enter(1)
    error = refusal(admission)
    assert error.message == "the queue of qwen is full: 3 requests are open, and it takes 3; try again later"
    assert (error.status, error.kind, error.code) == (429, "rate_limit_error", "queue_full")
    assert error.response().headers["Retry-After"] == "1"
    admission.leave()
    admission.enter(1)


def test_the_requests_of_a_call_come_in_together_or_not_at_all() -> None:
    admission = Admission("qwen", places=2, max_queue=1, per_key=None)
    admission.enter(2)
    assert refusal(admission, 2).code == "queue_full"
    admission.enter(1)
    error = refusal(admission, 4)
    assert error.status == 400  # it would never fit
    assert error.message == (
        "4 prompts and choices in one call are more than the 3 requests that the server takes of this model at once; "
        "send several calls"
    )


def test_each_key_has_a_limit_of_its_own() -> None:
    admission = Admission("qwen", places=8, max_queue=8, per_key=2)
    admission.enter(2, "alice")
    admission.enter(1, "bob")
    error = refusal(admission, 1, "alice")
    assert error.message == (
        "2 requests of this API key are open at qwen, and it takes 2; wait for one to end before you send the next"
    )
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert refusal(admission, 3, "bob").status == 400
    admission.leave("alice")
    admission.enter(1, "alice")
    admission.enter(9)  # without a key there is no limit but the queue's


def test_a_retry_is_advised_by_the_time_between_recent_ends() -> None:
    times = iter((3.0, 5.0, 7.0, 9.0, 500.0))  # between the last two there was nothing to do
    admission = Admission("qwen", places=1, max_queue=100, per_key=None, clock=lambda: next(times))
    admission.enter(50)
    assert admission.retry_after() == 1  # nothing is known
    for _ in range(5):
        admission.leave()
    assert admission.retry_after() == 2
    assert admission.retry_after(10) == 20
    assert admission.retry_after(100) == 60
