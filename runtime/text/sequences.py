"""Token sequences of one text or two, with the special tokens of the tokenizer's template around them."""

from dataclasses import dataclass

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from ...errors import ArtifactError
from ...files.library_errors import library_errors


@dataclass(frozen=True)
class TokenSequence:
    """The tokens of one pass.

    For each token: its id; the range of characters in its text; the word of the pre-tokenizer that it is a part of; and
    its text, 0 or 1. A token of the template has no word and no text.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    words: list[int | None]
    texts: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)


def join(backend: Backend, first: Encoding, second: Encoding | None = None) -> TokenSequence:
    """Put the template's special tokens around texts that were encoded without them.

    Characters and words are those of the texts' own encodings. The template has processed these once, and in the joined
    encoding it takes the leading space from a token's range a second time, and loses which text a token is of.

    Raises:
        ArtifactError: the library fails, or the template does not put the first text before the second.
    """
    remedy = "export the model again"
    with library_errors(lambda why: ArtifactError(f"the tokenizer cannot join two texts ({why}); {remedy}")):
        joined = backend.post_process(first, second, add_special_tokens=True)
    ids, parts = list(joined.ids), [first] if second is None else [first, second]
    positions = [position for position, special in enumerate(joined.special_tokens_mask) if not special]
    if [ids[position] for position in positions] != [id for part in parts for id in part.ids]:
        raise ArtifactError(f"the tokenizer's template changes the order of the texts; {remedy}")
    sequence = TokenSequence(ids, [(0, 0)] * len(ids), [None] * len(ids), [None] * len(ids))
    tokens = [(text, *one) for text, part in enumerate(parts) for one in zip(part.offsets, part.word_ids, strict=True)]
    for position, (text, offsets, word) in zip(positions, tokens, strict=True):
        sequence.texts[position], sequence.offsets[position], sequence.words[position] = text, offsets, word
    return sequence


def cut_to(first: Encoding, second: Encoding | None, room: int) -> None:
    """Cut the ends off texts so that they have ``room`` tokens together, the longer one first, as transformers does."""
    if second is None:
        first.truncate(room)
        return
    short, long = sorted((first, second), key=len)
    least = len(short)
    most = least if least > room else max(least, room - least)
    if least + most > room:
        least, most = room // 2, room - room // 2
    short.truncate(least)
    long.truncate(most)
