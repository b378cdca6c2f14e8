"""Artifacts on ONNX Runtime, without torch: text, labels, tags, spans and embeddings.

    load ─▶ session ─▶ generate (plan, row, decoder, cache, speculation) ─▶ Generation
                  ├──▶ conversation, scheduler (batch) ─▶ Generation, Event
                  ├──▶ chat (templates, reasoning, tools; toolloop) ─▶ ChatReply
                  ├──▶ score (decoder, logprobs) ─▶ Score
                  └──▶ classify, tag, answer, embed (batching) ─▶ Classification, Tag, Answer, array

``load(path_or_hub_id)`` reads the manifest and returns the object for the artifact's task. Importing this room loads
neither torch nor onnx, and onnxruntime only with the first ``load``.
"""

from .answer import Answer, QuestionAnswerer
from .chat import ChatEvent, ChatReply, ChatStream
from .classify import Classification, SequenceClassifier
from .conversation import Conversation
from .embed import Embedder
from .generate import TextGenerator
from .generation import Generation
from .load import load
from .logprobs import Candidate, TokenLogprob
from .scheduler import Event, Scheduler
from .score import Score
from .tag import Tag, TokenClassifier
from .toolloop import ToolResult, ToolRun, run_tools
from .tools import BrokenToolCall, ToolCall

__all__ = [
    "Answer",
    "BrokenToolCall",
    "Candidate",
    "ChatEvent",
    "ChatReply",
    "ChatStream",
    "Classification",
    "Conversation",
    "Embedder",
    "Event",
    "Generation",
    "QuestionAnswerer",
    "Scheduler",
    "Score",
    "SequenceClassifier",
    "Tag",
    "TextGenerator",
    "TokenClassifier",
    "TokenLogprob",
    "ToolCall",
    "ToolResult",
    "ToolRun",
    "load",
    "run_tools",
]
