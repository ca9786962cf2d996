import pytest

from caopd.reading.thinking import ends_in_thought, is_marker, opens_thought, said, thoughts, without_thoughts

PAIRS = [  # of chat templates and of the reasoning parsers of inference engines
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_thought_is_not_said(opening, closing):
    text = f"a{opening}b{closing}c"
    assert said(text).replace("\n", "") == "ac"
    assert len(said(text)) == len(text)
    assert said(text)[-1] == "c"
    assert without_thoughts(text) == "ac"
    assert not ends_in_thought(text)


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_thought_that_is_not_closed_goes_to_the_end(opening, closing):
    assert said(f"a{opening}b").rstrip("\n") == "a"
    assert ends_in_thought(f"a{opening}b{closing}c{opening}d")


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_what_precedes_a_closing_marker_that_nothing_opened_is_thought(opening, closing):
    assert said(f"a{closing}b").lstrip("\n") == "b"
    assert said(f"{opening}a{closing}b{closing}c").lstrip("\n") == "c"
    assert not ends_in_thought(f"a{closing}b")


def test_a_thought_that_the_prompt_opened_need_not_be_closed():
    assert said("a", begun=True) == "\n"
    assert said("a</think>b", begun=True).strip() == "b"
    assert ends_in_thought("a", begun=True)
    assert not ends_in_thought("a</think>b", begun=True)


def test_an_opening_marker_within_a_thought_opens_nothing():
    assert list(thoughts("<think>a<think>b</think>c")) == [(0, 24)]


def test_white_space_behind_a_thought_goes_with_it():
    assert without_thoughts("<think>a</think>\n\n b <think>c</think> d ") == "b d "


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "I think so",
        "[think]",
        "<thinks>",
        "< think >",
        "<|channel|>commentary",
        "think>",
        "<answer>think</answer>",
    ],
)
def test_other_text_is_said(text):
    assert said(text) == without_thoughts(text) == text
    assert list(thoughts(text)) == []


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_prompt_opens_a_thought_with_its_last_words_only(opening, closing):
    assert opens_thought(f"Q<|assistant|>{opening}\n")
    assert not opens_thought(f"Q<|assistant|>{opening}\n\n{closing}\n\n")
    assert not opens_thought(f"What does {opening} do?<|assistant|>")


def test_tokens_of_which_markers_are_made():
    for token in ("<|channel|>", "<|message|>", "<|channel>", "<channel|>", "<|sep|>", "[/THINK]", "<THINK>"):
        assert is_marker(token)
    for token in ("<|end|>", "<|im_start|>", "</s>", "thinking", "<|channel|> "):
        assert not is_marker(token)


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_marker_that_is_only_mentioned_is_none(opening, closing):
    quotes = ["`{}`", "``{}``", '"{}"', "\u201c{}\u201d", "'{}'", "\u2018{}\u2019", "`the {} tag`", '"{} and so on"']
    for quoted in quotes:
        mention = quoted.format(opening) if len(quoted) < 5 else quoted.format("<think>")
        text = f"He wrote {mention} there.\n{quoted.format('</think>')}"
        assert said(text) == text
        assert not ends_in_thought(text), text
        assert said(f"{mention} b{opening}c{closing}d").replace("\n", "") == f"{mention} bd"
        assert ends_in_thought(f"{opening}a {quoted.format('</think>')} b"), quoted


@pytest.mark.parametrize(
    "before", ["", "a\n", "isn't it ", 'a 5" pipe ', "`a` ", '"a" ', "`a\n", "the users' ", "```\n"]
)
def test_a_marker_beside_a_quotation_marks_a_thought(before):
    assert said(f"{before}<think>b</think>c").rstrip("c").rstrip("\n") == before.rstrip("\n")


def test_quotation_marks_without_end_take_one_pass():
    for mark in ("`", "``", "`a", '"', "\u201c", "'<", "`a``"):
        assert ends_in_thought(mark * 50_000 + "\n<think>")


def test_many_thoughts_take_one_pass():
    text = "<think>a</think>b" * 50_000
    assert said(text).replace("\n", "") == without_thoughts(text) == "b" * 50_000
