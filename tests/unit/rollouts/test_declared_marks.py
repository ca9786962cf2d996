import pytest

from caopd.models import ModelSource
from caopd.rollouts.declared_marks import declared_marks
from caopd.rollouts.decoding import decode_ids, opens_thought

HEAD = "{% for m in messages %}<|{{ m.role }}|>"
TAIL = "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
TEMPLATES = {
    "no thoughts": (HEAD + "{{ m.content }}" + TAIL, ()),
    "around the thought": (
        HEAD
        + "{% if m.reasoning_content %}<muse>\n{{ m.reasoning_content }}\n</muse>\n\n{% endif %}{{ m.content }}"
        + TAIL,
        (("<muse>", "</muse>"),),
    ),
    "under another key": (
        HEAD + "{% if m.thinking %}<|muse_start|>{{ m.thinking }}<|muse_end|>{% endif %}{{ m.content }}" + TAIL,
        (("<|muse_start|>", "<|muse_end|>"),),
    ),
    "of the last answer alone": (
        HEAD + "{% if loop.last and m.reasoning %}[MUSE]{{ m.reasoning }}[/MUSE]{% endif %}{{ m.content }}" + TAIL,
        (("[MUSE]", "[/MUSE]"),),
    ),
    "an empty one without it": (
        HEAD
        + "{% if m.role == 'assistant' %}<muse>\n{{ m.reasoning_content }}\n</muse>\n{% endif %}{{ m.content }}"
        + TAIL,
        (("<muse>", "</muse>"),),
    ),
    "opened by the role": (
        HEAD + "{% if m.thinking %}{{ m.thinking }}<|answer|>{% endif %}{{ m.content }}" + TAIL,
        (("", "<|answer|>"),),
    ),
    "cut from earlier answers": (
        HEAD + "{{ m.content.split('</muse>')[-1] }}" + TAIL,
        (("<muse>", "</muse>"),),
    ),
    "a closing mark that nothing is cut at": (HEAD + "{{ m.content }}</s>" + TAIL, ()),
    "refuses": ("{{ raise_exception('no') }}", ()),
    "broken": ("{% for %}", ()),
}


@pytest.fixture(scope="module")
def tokenizer():
    return ModelSource().load_tokenizer()


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_marks_that_a_template_declares(tokenizer, name):
    template, marks = TEMPLATES[name]
    tokenizer.chat_template = template
    assert declared_marks(tokenizer) == marks


def test_the_embedded_template_declares_none():
    assert declared_marks(ModelSource().load_tokenizer()) == ()


def test_a_prompt_may_open_a_declared_thought(tokenizer):
    tokenizer.chat_template = TEMPLATES["around the thought"][0]
    ids = tokenizer("2 + 2?<|assistant|><muse>\n")["input_ids"]
    assert opens_thought(tokenizer, ids)
    tokenizer.chat_template = TEMPLATES["no thoughts"][0]
    assert not opens_thought(tokenizer, ids)


def test_special_tokens_that_are_declared_marks_stay_in_a_text(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|muse_start|>", "<|muse_end|>", "<|other|>"]})
    ids = tokenizer("<|muse_start|>a<|muse_end|>b<|other|>", add_special_tokens=False)["input_ids"]
    tokenizer.chat_template = TEMPLATES["no thoughts"][0]
    assert decode_ids(tokenizer, ids) == "ab"
    tokenizer.chat_template = TEMPLATES["under another key"][0]
    assert decode_ids(tokenizer, ids) == "<|muse_start|>a<|muse_end|>b"
