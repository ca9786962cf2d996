import pytest

from caopd.reading.tags import last_element


@pytest.mark.parametrize(
    ("text", "content", "is_closed", "is_plain"),
    [
        ("<x>1</x>", "1", True, True),
        ("a <X>1</x> b <x>\n2\n</X> c", "\n2\n", True, True),
        ("< x >1</ x >", "1", True, False),
        ("<x>1<\\x>", "1", True, False),
        ("<x>1<x>", "1", True, False),
        ("<x>1<x> \n", "1", True, False),
        ("<x>1<x>2", "2", False, False),
        ("<x>1</x><x>", "", False, False),
        ("<x>", "", False, False),
        ("<x><x>1</x></x>", "1", True, True),
        ('"<x>1</x>" <x>2</x> "<x>3</x>"', "2", True, True),
    ],
)
def test_the_last_element(text, content, is_closed, is_plain):
    element = last_element(text, "x")
    assert text[slice(*element.content)] == content
    assert (element.is_closed, element.is_plain) == (is_closed, is_plain)
    assert text[element.start] == "<"
    assert element.end == len(text) if not is_closed else text[element.end - 1] == ">"


@pytest.mark.parametrize("text", ["", "x", "</x>", "<xx>1</xx>", "<x 1>", '{"a": "<x>1</x>"}'])
def test_no_element(text):
    assert last_element(text, "x") is None
