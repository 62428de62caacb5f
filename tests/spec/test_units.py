from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.spec.units import duration_s, rate_per_s, ratio, size_bytes


@given(st.integers(0, 10**6))
def test_units_of_time_are_multiples_of_each_other(number: int) -> None:
    assert duration_s(f"{number}s") == duration_s(f"{number * 1000} ms") == number
    assert duration_s(f"{number}h") == duration_s(f"{number * 60}m") == number * 3600


@given(st.integers(0, 10**4))
def test_sizes_are_powers_of_two(number: int) -> None:
    assert size_bytes(f"{number}Gi") == size_bytes(f"{number * 1024} Mi") == size_bytes(str(number * 1024**3))


@given(st.integers(0, 10_000))
def test_a_percentage_is_a_ratio(hundredths: int) -> None:
    assert ratio(f"{hundredths / 100} %") == pytest.approx(hundredths / 10_000)


def test_rates_are_per_second() -> None:
    assert rate_per_s("50/s") == rate_per_s("3000 / m") == 50


@pytest.mark.parametrize(("read", "text"), [
    (duration_s, "8"), (duration_s, "-8s"), (duration_s, "8 parsecs"), (size_bytes, "512MB"), (ratio, "20"), (ratio, "100.1 %"), (rate_per_s, "50"),
])
def test_a_quantity_without_its_unit_is_refused(read: object, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        read(text)  # type: ignore[operator]
