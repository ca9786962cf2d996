import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from caopd.reading.thinking import said
from caopd.rollouts.decoding import decode_ids, opens_thought


def with_special(byte_level_tokenizer, *tokens):
    """The tokenizer with some more special tokens, and one added token that is not special."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_level_tokenizer.backend_tokenizer.to_str()), eos_token="<|end|>"
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens], special_tokens=True)
    tokenizer.add_tokens([AddedToken("<plain>", special=False)])
    return tokenizer


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ["the answer is B.", "<plain>é😀<|end|>", " so<|fim|>  B\n", ""])
def test_texts_are_those_of_the_tokenizer_where_it_marks_no_thinking(byte_level_tokenizer, text):
    tokenizer = with_special(byte_level_tokenizer, "<|fim|>")
    ids = ids_of(tokenizer, text)
    expected = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert decode_ids(tokenizer, ids) == expected == text.replace("<|end|>", "").replace("<|fim|>", "")


@pytest.mark.parametrize(
    ("text", "decoded", "spoken"),
    [
        ("[THINK]B?[/THINK]C<|end|>", "[THINK]B?[/THINK]C", "C"),
        ("<|channel|>analysis<|message|>B?<|fim|><|start|>", "<|channel|>analysis<|message|>B?", ""),
        (
            "<|channel|>analysis<|message|>B?<|fim|><|start|>so<|channel|>final<|message|>C<|end|>",
            "<|channel|>analysis<|message|>B?so<|channel|>final<|message|>C",
            "C",
        ),
        ("é <plain>😀<|end|>", "é <plain>😀", "é <plain>😀"),
    ],
)
def test_special_tokens_that_mark_thinking_stay_in_the_text(byte_level_tokenizer, text, decoded, spoken):
    special = ("[THINK]", "[/THINK]", "<|channel|>", "<|message|>", "<|start|>", "<|fim|>")
    tokenizer = with_special(byte_level_tokenizer, *special)
    ids = ids_of(tokenizer, text)
    assert decode_ids(tokenizer, ids) == decoded
    assert said(decode_ids(tokenizer, ids)).strip() == spoken


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("the answer<|end|><think>\n", True),
        ("the answer<|end|>[THINK]", True),
        ("the answer<|end|><think>\n\n</think>\n\n", False),
        ("what is <think> for?<|end|>", False),
        ("", False),
    ],
)
def test_the_end_of_a_prompt_tells_whether_it_opens_a_thought(byte_level_tokenizer, prompt, opens):
    for special in ([], ["[THINK]"], ["<think>", "</think>"]):
        tokenizer = with_special(byte_level_tokenizer, *special)
        assert opens_thought(tokenizer, ids_of(tokenizer, prompt)) is opens
        assert opens_thought(tokenizer, ids_of(tokenizer, "so it is B. " * 50 + prompt)) is opens
