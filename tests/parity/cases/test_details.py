"""The details of a report."""

import numpy as np
from intaglio.parity.cases.case import Case, whole
from intaglio.parity.cases.details import by_position
from intaglio.parity.report.tally import Tally


def test_without_a_pass_that_succeeded_no_position_has_a_divergence() -> None:
    case = Case("one pass", "the whole text", (whole(np.array([1, 2, 3])),), lambda _: iter(()))
    assert by_position(Tally("distribution", 1e-3), case) == ()
