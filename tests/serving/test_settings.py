"""What a server's settings say together."""

import pytest
from intaglio.serving.settings import KEPT_OUTPUTS, Settings


@pytest.mark.parametrize(("keys", "kept"), [((), KEPT_OUTPUTS), (("one",), KEPT_OUTPUTS), (("one", "two"), 0)])
def test_earlier_answers_help_later_ones_only_where_all_clients_have_one_key(keys: tuple[str, ...], kept: int) -> None:
    assert Settings(api_keys=keys).kept_outputs == kept
