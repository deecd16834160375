"""Durations and sizes as people read them."""

import pytest

from data_schemas.quantities import data_size, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (233, "3 min 53 s"), (7500, "2 h 05 min")]
)
def test_a_duration_has_at_most_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("num_bytes", "text"), [(512, "0.5 kB"), (12_345_678, "12.3 MB"), (1_500_000_000, "1.50 GB")])
def test_a_size_is_in_powers_of_1000(num_bytes, text):
    assert data_size(num_bytes) == text
