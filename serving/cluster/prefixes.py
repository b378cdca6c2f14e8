"""How a request begins, as hashes: two requests that share some are worth sending to one replica.

The text of a prompt is not made here: the body's bytes from ``messages``, ``prompt`` or ``input`` on stand for it. They
are searched and hashed, and never parsed.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b

BLOCK = 128
"""Bytes that a hash adds to those before it: some 30 tokens of English."""
BLOCKS = 64
"""The most blocks of a request that are hashed."""
SESSION_HEADER = b"x-session-id"
"""The header that names a conversation, as Ray Serve's own routers read it."""

_BEGIN = re.compile(rb'"(?:messages|prompt|input)"\s*:')  # quotes inside of a JSON text are escaped: no false finds
_CACHE_KEY = re.compile(rb'"prompt_cache_key"\s*:\s*"([^"\\]{1,256})"')


def links(body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> tuple[int, ...]:
    """Return the hashes of a request's beginnings, the longest beginning first.

    Before them comes the hash of a key that the client gives: the session header, or OpenAI's ``prompt_cache_key``.
    A body without any of the three members, and the end that does not fill a block, have no hash.
    """
    return (*_key(body, headers), *reversed(_beginnings(body)))


def _key(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, ...]:
    given = next((value for name, value in headers if name == SESSION_HEADER), None)
    if given is None and (found := _CACHE_KEY.search(body)) is not None:
        given = found[1]
    return () if not given else (int.from_bytes(blake2b(given, digest_size=8, person=b"key").digest()),)


def _beginnings(body: bytes) -> list[int]:
    begin = _BEGIN.search(body)
    if begin is None:
        return []
    digest, found = blake2b(digest_size=8), []
    last = min(len(body), begin.end() + BLOCK * BLOCKS)
    for start in range(begin.start(), last - BLOCK + 1, BLOCK):
        digest.update(body[start : start + BLOCK])
        found.append(int.from_bytes(digest.copy().digest()))
    return found
