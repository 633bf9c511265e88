"""What counts as a number in text that anybody may have written."""

import pytest

from netlab.numerals import DIGITS, natural


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("65536", 65536), ("9" * DIGITS, 10**DIGITS - 1)])
def test_ascii_digits_are_a_number(text: str, number: int) -> None:
    assert natural(text) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "1_000", "0x10", "²", "٣", "9" * (DIGITS + 1), "9" * 5000])
def test_anything_else_is_none(text: str) -> None:
    assert natural(text) is None
