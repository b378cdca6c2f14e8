"""What a failure of the hub means: its exceptions as errors that name the thing, the place and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import HubError, IntaglioError, first_line

LOGIN = "log in with `hf auth login`, set HF_TOKEN, or give --token"
UNCHANGED = "nothing was committed"


@contextmanager
def hub_failures(repository: str, *, writing: bool) -> Iterator[None]:
    """Turn every exception of a block that talks to the hub into a HubError.

    Args:
        repository: the repository that is read or written.
        writing: an upload may have begun.
    """
    from huggingface_hub import errors as hub

    organization = repository.split("/")[0]
    state = f"; {UNCHANGED}" if writing else ""
    try:
        yield
    except (IntaglioError, hub.RepositoryNotFoundError, hub.RevisionNotFoundError) as error:
        if isinstance(error, IntaglioError) or not writing:
            raise
        message = f"{repository} is not there any more, or this token may not see it{state}; {LOGIN}"
        raise HubError(message) from None
    except hub.OfflineModeIsEnabled:
        raise HubError(f"{repository} cannot be read: HF_HUB_OFFLINE is set; unset it to push") from None
    except hub.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        refused = f"{repository}: the hub refuses the token{state}"
        if status == 401:
            reason = f"{refused} (it is unknown or has expired); {LOGIN}"
        elif status == 403:
            reason = (
                f"{refused} (it has no right to write for {organization}); use a token with the role `write` of a "
                f"member of {organization}, or push to an account of your own"
            )
        elif status in (409, 412):
            reason = f"{repository} was changed by somebody else meanwhile{state}; push again"
        else:
            why = getattr(error, "server_message", None) or first_line(error)
            reason = f"{repository}: the hub answers with an error{state} ({status}: {why}); push again later"
        raise HubError(reason) from None
    except ValueError as error:  # the hub checks a card's metadata before anything is sent
        raise HubError(f"{repository}: the hub does not take this{state} ({' '.join(str(error).split())})") from None
    except Exception as error:
        # The connection is lost, the disk cannot be read: the classes depend on the HTTP library.
        cause = error.__cause__ or error
        if writing:
            remedy = "push again: what has arrived is not sent again"
            raise HubError(f"{repository}: the push failed{state} ({first_line(cause)}); {remedy}") from None
        raise HubError(f"{repository} cannot be read ({first_line(cause)}); check the connection to the hub") from None
