"""Artifacts on ONNX Runtime, without torch: text, labels, tags, spans and embeddings.

    text, graph  ◀─ kernels ◀─ engine ◀─ decoding, sequence ◀─ chat ◀─ generation ─▶ Generation, Score, ChatReply
                                     ◀─ tasks ─▶ Classification, Tag, Answer, array

``load(path_or_hub_id)`` reads the manifest and returns the object for the artifact's task. Importing this package loads
neither torch nor onnx, and onnxruntime only with the first ``load``.
"""

from .chat.chat import ChatEvent, ChatReply, ChatStream
from .chat.tool_call import BrokenToolCall, ToolCall
from .chat.tool_loop import ToolResult, ToolRun, run_tools
from .generation.conversation import Conversation
from .generation.events import Event
from .generation.generator import TextGenerator
from .generation.scheduler import Scheduler
from .generation.score import Score
from .load import load
from .sequence.logprobs import Candidate, TokenLogprob
from .sequence.sequence import Generation
from .tasks.answer import Answer, QuestionAnswerer
from .tasks.classify import Classification, SequenceClassifier
from .tasks.embed import Embedder
from .tasks.entities import Tag
from .tasks.tag import TokenClassifier

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
