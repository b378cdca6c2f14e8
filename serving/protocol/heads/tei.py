"""The bodies of text-embeddings-inference: ``/embed``, ``/predict`` and its form of ``/rerank``."""

from typing import Annotated

from pydantic import Field

from ..prompts import MOST_INPUTS, TokenIds
from .bodies import HeadBody

Pair = Annotated[list[str], Field(min_length=1, max_length=2)]


class TeiBody(HeadBody):
    """What all of them have; ``model`` is needed only where the server has several for the task."""

    truncate: bool = False

    @property
    def truncation(self) -> bool:
        return self.truncate or self.truncate_prompt_tokens is not None


class EmbedBody(TeiBody):
    """The body of ``/embed``."""

    inputs: str | TokenIds | Annotated[list[str | TokenIds], Field(min_length=1, max_length=MOST_INPUTS)]
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None


class PredictBody(TeiBody):
    """The body of ``/predict``: a text, a pair of texts, or a list of lists of one text or two."""

    inputs: str | Pair | Annotated[list[Pair], Field(min_length=1, max_length=MOST_INPUTS)]
    raw_scores: bool = False

    def listed(self) -> tuple[list[list[str]], bool]:
        """Return the inputs as lists of one text or two, and True where there was a single text or pair."""
        if isinstance(self.inputs, str):
            return [[self.inputs]], True
        pair = [one for one in self.inputs if isinstance(one, str)]
        return ([pair], True) if pair else ([one for one in self.inputs if not isinstance(one, str)], False)


class RerankTextsBody(TeiBody):
    """The body of ``/rerank`` with ``texts``."""

    query: str
    texts: Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    raw_scores: bool = False
    return_text: bool = False
