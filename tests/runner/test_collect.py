from __future__ import annotations

import pytest

from envctl.runner.collect import traced


def test_a_message_is_traced_by_its_traceparent() -> None:
    assert traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("header", ["", "none", "00", "00-0af7-b7ad6b7169203331-01", "00-" + "g" * 32 + "-b7ad6b7169203331-01"])
def test_a_malformed_traceparent_is_none_and_no_error(header: str) -> None:
    assert traced(header) is None
