"""Hashes of how requests begin."""

import json

import pytest
from intaglio.serving.cluster.prefixes import BLOCK, BLOCKS, links

SYSTEM = {"role": "system", "content": "Answer in one sentence. " * 30}


def body(*messages: dict[str, str], **others: object) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **others}).encode()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_conversation_that_goes_on_has_all_links_of_its_turns_before() -> None:
    first = links(body(SYSTEM, user("What is a burin? " * 20)))
    second = links(body(SYSTEM, user("What is a burin? " * 20), user("And a scraper? " * 20)))
    assert len(first) > 5
    assert second[-len(first) :] == first
    assert len(second) > len(first)


def test_requests_with_one_system_prompt_share_the_links_of_it_alone() -> None:
    bodies = [body(SYSTEM, user("A" * 500)), body(SYSTEM, user("B" * 500))]
    one, other = map(links, bodies)
    shared = len(set(one) & set(other))
    assert shared == (bodies[0].index(b"AAAA") - bodies[0].index(b'"messages"')) // BLOCK > 3
    assert one[-shared:] == other[-shared:]
    assert one[0] != other[0]


def test_parameters_before_the_messages_change_no_link() -> None:
    plain = b'{"model": "m", "messages": [%s]}' % (b"x" * 1000)
    other = b'{"seed": 7, "model": "m", "temperature": 0.5, "messages": [%s]}' % (b"x" * 1000)
    assert links(plain) == links(other) != ()


@pytest.mark.parametrize("member", ["messages", "prompt", "input"])
def test_each_member_that_has_a_text_begins_the_links(member: str) -> None:
    assert len(links(json.dumps({member: "x" * (BLOCK * 3)}).encode())) == 3


def test_a_text_that_names_the_member_does_not_begin_the_links() -> None:
    tricky = json.dumps({"user": 'said "messages": now', "prompt": "x" * 1000}).encode()
    assert links(tricky) == links(json.dumps({"prompt": "x" * 1000}).encode())


def test_a_key_of_the_client_comes_first() -> None:
    plain = links(body(SYSTEM))
    keyed = links(body(SYSTEM).replace(b"{", b'{"prompt_cache_key": "k-17", ', 1))
    assert keyed[1:] == plain != ()
    by_header = links(body(SYSTEM), [(b"x-session-id", b"k-17")])
    assert by_header == keyed
    assert links(body(SYSTEM), [(b"x-session-id", b"other")])[0] != keyed[0]
    assert len(links(b"", [(b"x-session-id", b"k-17")])) == 1


def test_a_short_request_has_no_links() -> None:
    assert links(body(user("Hello"))) == ()
    assert links(b"") == ()
    assert links(b"\xff\x00 not JSON") == ()


def test_a_huge_body_is_looked_at_up_to_its_first_blocks() -> None:
    huge = b'{"prompt": "%s"}' % (b"a" * (8 << 20))
    assert links(huge) == links(huge[: BLOCK * (BLOCKS + 1)])
    assert len(links(huge)) == BLOCKS
