"""The guard around other libraries: everything that they raise becomes one kind of error, and nothing else does."""

import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.files.library_errors import library_errors
from tokenizers import Regex, Tokenizer, models, pre_tokenizers


def refusal(reason: str) -> PromptError:
    return PromptError(f"refused ({reason})")


def test_a_panic_in_rust_is_an_error_like_any_other() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    reason = r"^refused \(Onig: Regex search error: retry-limit-in-match over\)$"
    with pytest.raises(PromptError, match=reason), library_errors(refusal):
        tokenizer.encode("x" * 100_000)


@pytest.mark.parametrize("error", [ValueError("why\nand more"), MemoryError("why"), Exception("why")])
def test_an_exception_is_turned_into_the_given_one(error: Exception) -> None:
    with pytest.raises(PromptError, match=r"^refused \(why\)$"), library_errors(refusal):
        raise error


@pytest.mark.parametrize("error", [UsageError("mine"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_own_errors_and_the_ends_of_a_program_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, library_errors(refusal):
        raise error
    assert caught.value is error
