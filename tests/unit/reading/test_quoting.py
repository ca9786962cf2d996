import pytest

from caopd.reading.quoting import Quotations


@pytest.mark.parametrize(
    "text",
    [
        'say "X" now',
        '{"title": "X"}',
        r'{"title": "he \"said\" X"}',
        '{"title": "X',
        'Input: ["a", "X',
        "say \u201cX\u201d",
        "{X: 1}",
        '"a"\n"b" "X"',
    ],
)
def test_quoted(text):
    assert text.index("X") in Quotations(text)


@pytest.mark.parametrize(
    "text",
    [
        "X",
        '"a" X "b"',
        '5" pipes, X',
        '5" pipes\nX"',
        r'"a\\" X',
        "\\text{X}",
        "it's X, isn't it",
        "{a\nX}",
        "\u201ca X",
    ],
)
def test_not_quoted(text):
    assert text.index("X") not in Quotations(text)
