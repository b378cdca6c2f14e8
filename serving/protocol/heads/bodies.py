"""The bodies of ``/v1/embeddings``, ``/v1/classify``, ``/v1/score``, ``/v1/rerank``, ``/v1/token_classify`` and
``/v1/answer``.
"""

from typing import Annotated, Literal

from pydantic import Field

from ....runtime.tasks.entities import Aggregation
from ...forms import Body
from ..prompts import MOST_INPUTS, Inputs

Texts = str | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
AtLeastOne = Annotated[int, Field(ge=1)]


class HeadBody(Body):
    """What all of them have. ``user`` is for the client's own records.

    ``truncate_prompt_tokens`` is vLLM's: -1 cuts off what is longer than the model reads.
    """

    model: str | None = None
    user: str | None = None
    truncate_prompt_tokens: Literal[-1] | None = None

    @property
    def truncation(self) -> bool:
        return self.truncate_prompt_tokens is not None


class EmbeddingBody(HeadBody):
    """The body of ``/v1/embeddings``. ``prompt_name``, or ``input_type``, names one of the model's own prompts."""

    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: AtLeastOne | None = None
    prompt_name: str | None = None
    input_type: str | None = None


class ClassifyBody(HeadBody):
    """The body of ``/v1/classify``. ``use_activation`` is vLLM's: false gives the raw outputs."""

    input: Inputs
    use_activation: bool = True


class ScoreBody(HeadBody):
    """The body of ``/v1/score``: pairs of texts; a single text goes with each of the others."""

    text_1: Texts
    text_2: Texts
    use_activation: bool = True


class Document(Body):
    """A document of ``/v1/rerank``, as an object."""

    text: str


class RerankBody(HeadBody):
    """The body of ``/v1/rerank``."""

    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: bool = True
    use_activation: bool = True

    @property
    def texts(self) -> list[str]:
        """The texts of the documents."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class TagBody(HeadBody):
    """The body of ``/v1/token_classify``; ``aggregation_strategy`` is that of transformers' pipeline."""

    input: Texts
    aggregation_strategy: Aggregation = "none"


class AnswerBody(Body):
    """The body of ``/v1/answer``, with the parameters of transformers' pipeline."""

    model: str | None = None
    user: str | None = None
    question: str
    context: str
    top_k: Annotated[int, Field(ge=1, le=100)] = 1
    max_answer_len: Annotated[int, Field(ge=1, le=1000)] = 15
    max_seq_len: AtLeastOne = 384
    doc_stride: Annotated[int, Field(ge=0)] = 128
    align_to_words: bool = False
