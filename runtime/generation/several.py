"""The sequences of one call: several prompts, several continuations of each, and prompts that cannot be used."""

from collections.abc import Sequence

from ...errors import PromptError, UsageError
from ..engine.session import Session
from ..sequence.request import Beams, Request, RequestBuilder
from ..sequence.sequence import ActiveSequence, Generation
from ..text.prompts import Prompt
from .beam_search import BeamSearch

Made = ActiveSequence | PromptError


def check_count(count: int, request: Request) -> None:
    """Check that a request can have so many continuations of a prompt.

    Raises:
        UsageError: fewer than one, more than there are beams, or several of a greedy choice, which would be alike.
    """
    if count < 1:
        raise UsageError(f"num_return_sequences must be at least 1, not {count}")
    if count == 1:
        return
    if request.beams is not None and count > request.beams.count:
        raise UsageError(
            f"num_return_sequences is {count}, and a search with {request.beams.count} beams finds that many; "
            "give more num_beams"
        )
    if request.beams is None and request.sampling.temperature == 0:
        raise UsageError(
            f"num_return_sequences is {count}, and all would be alike, since temperature is 0; "
            "give a temperature above 0, or num_beams"
        )


def make_sequences(
    requests: RequestBuilder,
    request: Request,
    prompts: Sequence[Prompt],
    listed: bool,
    count: int,
    *,
    keep_errors: bool,
) -> list[Made]:
    """Return the sequences of all prompts: ``count`` of each, or one where a beam search finds several.

    Args:
        listed: the prompts have names with their index.
        keep_errors: return the error of a prompt that cannot be used, ``count`` times, instead of raising it.

    Raises:
        PromptError: the first of those errors.
    """
    made: list[Made] = []
    for index, prompt in enumerate(prompts):
        name = f"prompt {index}" if listed else "the prompt"
        try:
            repetitions = 1 if request.beams is not None else count
            made += [requests.sequence(prompt, request, name, index, one) for one in range(repetitions)]
        except PromptError as error:
            if not keep_errors:
                raise
            made += [error] * count
    return made


def search_all(
    session: Session, made: Sequence[Made], beams: Beams, count: int
) -> list[Generation] | list[Generation | PromptError]:
    """Search for the continuations of each prompt in turn; return the best ``count`` of each, in one list."""
    results: list[Generation | PromptError] = []
    for one in made:
        results += [one] if isinstance(one, PromptError) else BeamSearch(session, one, beams).run(count)
    return results
