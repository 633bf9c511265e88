"""Numbers in text that anybody may have written: query strings, headers, annotations, arguments."""

DIGITS = 18
"""The most that is taken for a number: every number that netlab reads so is far below."""


def natural(text: str) -> int | None:
    """The number that ASCII digits say; None for any other text, and for more than DIGITS of them.

    (`str.isdigit` takes a superscript two for a digit, which `int` does not, and `int` refuses 4,300 digits and more.)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS else None
