import json
import time
from contextlib import suppress

import pytest

from caopd.reading.call_values import calls_of, expressions, tool_name
from caopd.reading.calls import read_calls

ARGUMENTS = {"city": "Oslo", "days": 3}
INPUT = json.dumps(ARGUMENTS)
CALL = f'{{"name": "getWeather", "arguments": {INPUT}}}'
EXPRESSION = 'getWeather(city="Oslo", days=3)'
OPENAI = json.dumps({"id": "call_1", "type": "function", "function": {"name": "getWeather", "arguments": INPUT}})


def deepseek(mark):
    return f"<|tool_{mark}|>".replace("|", "\uff5c").replace("_", "\u2581")


FORMS = {  # as chat templates and the tool parsers of inference engines have them
    "Hermes, Qwen": f"<tool_call>\n{CALL}\n</tool_call>",
    "cut behind the object": f"<tool_call>\n{CALL}",
    "a list": f"<tool_call>[{CALL}]</tool_call>",
    "several calls' tag": f"<tool_calls>\n[{CALL}]\n</tool_calls>",
    "Granite": f"<|tool_call|>[{CALL}]",
    "Mistral": f"[TOOL_CALLS] [{CALL}]",
    "Mistral, newer": f"[TOOL_CALLS]getWeather{INPUT}",
    "Mistral, newest": f"[TOOL_CALLS]getWeather[ARGS]{INPUT}",
    "Llama 3.1": CALL.replace("arguments", "parameters"),
    "Llama 3.1, marked": f"<|python_tag|>{CALL.replace('arguments', 'parameters')}",
    "Llama 3.1, functions": f"<function=getWeather>{INPUT}</function>",
    "Llama 4": f"[{EXPRESSION}]",
    "LFM 2": f"<|tool_call_start|>[{EXPRESSION}]<|tool_call_end|>",
    "Gemma": f"```tool_code\nprint(default_api.{EXPRESSION})\n```",
    "a line": f"I need the weather.\n{EXPRESSION}\n",
    "Phi": f"functools[{CALL}]",
    "Kimi K2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.getWeather:0<|tool_call_argument_begin|>"
    f"{INPUT}<|tool_call_end|><|tool_calls_section_end|>",
    "DeepSeek": f"{deepseek('call_begin')}function{deepseek('sep')}getWeather\n```json\n{INPUT}"
    f"\n```{deepseek('call_end')}",
    "DeepSeek V3.1": f"{deepseek('call_begin')}getWeather{deepseek('sep')}{INPUT}{deepseek('call_end')}",
    "gpt-oss": f"<|channel|>commentary to=functions.getWeather <|constrain|>json<|message|>{INPUT}<|call|>",
    "OpenAI": OPENAI,
    "OpenAI, a message": f'{{"role": "assistant", "content": null, "tool_calls": [{OPENAI}]}}',
    "OpenAI, earlier": f'{{"function_call": {{"name": "getWeather", "arguments": {json.dumps(INPUT)}}}}}',
    "a fence": f"I call it:\n\n```json\n{CALL}\n```\n",
    "LangChain": f'Action:\n```json\n{{"action": "getWeather", "action_input": {INPUT}}}\n```',
    "the target's own": f'[{{"Action": "getWeather", "Action_Input": {INPUT}}}]',
    "Command R": f'[{{"tool_name": "getWeather", "parameters": {INPUT}}}]',
    "an action's expression": f"Thought: go\nAction: {EXPRESSION}",
}
UNTYPED = {
    "Qwen 3 Coder": "<tool_call>\n<function=getWeather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n"
    "</parameter>\n</function>\n</tool_call>",
    "GLM": "<tool_call>getWeather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
    "<arg_value>3</arg_value>\n</tool_call>",
    "MiniMax": '<minimax:tool_call>\n<invoke name="getWeather">\n<parameter name="city">Oslo</parameter>\n'
    '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>',
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_call(form):
    (call,) = read_calls(FORMS[form])
    assert (call.name, call.arguments) == ("getWeather", ARGUMENTS)
    assert call.is_typed
    assert not call.is_asked


@pytest.mark.parametrize("form", UNTYPED)
def test_forms_without_types(form):
    (call,) = read_calls(UNTYPED[form])
    assert (call.name, call.arguments) == ("getWeather", ARGUMENTS)
    assert not call.is_typed


@pytest.mark.parametrize("form", [form for form in (*FORMS, *UNTYPED) if form != "cut behind the object"])
def test_two_calls_of_one_form(form):
    text = (FORMS | UNTYPED)[form]
    assert [call.name for call in read_calls(f"First.\n{text}\n{text}")] == ["getWeather"] * 2


def test_objects_on_one_line():
    assert [call.arguments for call in read_calls(f"{CALL}; {CALL},{CALL}{CALL}.")] == [ARGUMENTS] * 4


def test_the_form_asked_for():
    (call,) = read_calls(f"Action: getWeather\nAction Input: {INPUT}")
    assert call == ("getWeather", ARGUMENTS, True, True)


def test_only_the_first_form_counts():
    text = f"Action: getWeather\nAction Input: {INPUT}\n<tool_call>{CALL}</tool_call>\n{CALL}"
    assert [call.is_asked for call in read_calls(text)] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I call getWeather.",
        INPUT,
        f"Observation: {INPUT}",
        '{"name": "Ada"}',
        '{"name": "Ada", "arguments": 3}',
        '{"name": "Ada", "arguments": {}, "input": {}}',
        '[1, {"name": "Ada", "arguments": {}}]',
        f"So {CALL}",
        "f(x)",
        "f(x) = 3",
        "x = f(a=1)",
        "print(3)",
        "f(a=b)",
        f"The call {EXPRESSION} is not needed.",
        "(1 + 2)",
    ],
)
def test_what_is_no_call(text):
    assert read_calls(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call>{</tool_call>",
        f"<tool_call>{INPUT}</tool_call>",
        "<tool_call>I would call it</tool_call>",
        f"<tool_call>{CALL[:-1]}",
        f"<tool_call>{CALL}</tool_call><tool_call>{{",
        "<function=f><parameter=a>1</function>",
        "<function=f><parameter=a>1",
        '<invoke name="f"><parameter name="a">1</parameter>',
        "[TOOL_CALLS] [",
        "[TOOL_CALLS]f[ARGS]",
        f"{CALL} or another one",
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "{"}</tool_call>',
        "Action: f(x)",
        'Action: {"a": 1}',
    ],
)
def test_a_call_that_cannot_be_read(text):
    with pytest.raises((ValueError, RecursionError)):
        read_calls(text)


def test_names_are_read_alike_whatever_stands_around_them():
    around = ["{}", " `{}` ", "**{}**", "[Optional]{}", "[optional] {}", "`[Optional]{}`", "Use the {} tool", "{}()"]
    assert {tool_name(each.format("search")) for each in around} == {"search"}
    assert tool_name("Optional") == "Optional"
    assert tool_name("search[Optional]") != "search"


def test_json_that_is_a_call_under_any_of_the_usual_keys():
    for name in ("name", "tool_name", "function_name", "tool", "function", "action", "Action", "Tool Name"):
        for arguments in ("arguments", "parameters", "args", "input", "tool_input", "Action_Input", "kwargs"):
            assert calls_of({name: "f", arguments: {"a": 1}, "id": 7})[0][:2] == ("f", {"a": 1})


def test_literals_of_both_languages():
    (call,) = expressions("a.f(x=[1, {'b': None}], y=true, z=-1.5, w='it\\'s', t=(1, 2))")
    assert call.name == "a.f"
    assert call.arguments == {"x": [1, {"b": None}], "y": True, "z": -1.5, "w": "it's", "t": [1, 2]}


def test_names_that_python_does_not_allow():
    text = "preferred-routes_get(from='EUR', class=1, in=true, note='from=a-b(c)', less=-1)"
    (call,) = read_calls(text)
    assert call.name == "preferred-routes_get"
    assert call.arguments == {"from": "EUR", "class": 1, "in": True, "note": "from=a-b(c)", "less": -1}


HOSTILE = {
    "marks": "<tool_call>" * 200_000,
    "arrays": "[TOOL_CALLS]" + "[" * 500_000,
    "openings": "<function=f>" * 100_000,
    "parameters": "<function=f>" + "<parameter=a>" * 100_000,
    "braces": "{\n" * 300_000,
    "objects": '{"a": 1}\n' * 100_000,
    "brackets": "f(" * 300_000,
    "expression": "f(a=" + "(" * 9_000 + ")" * 9_000 + ")",
    "nested": "f(a=" * 4_000 + "1" + ")" * 4_000,
    "minus": "f(a=" + "-" * 9_000 + "1)",
    "sum": "f(a=" + "1+" * 9_000 + "1)",
    "fences": "```\n" * 300_000,
    "lines": "f(a=1\n" * 100_000,
    "escapes": r'f(a="\d\q")',
    "spaces": "<tool_call>" + " " * 1_000_000,
    "names": "<function=" + "a" * 1_000_000,
    "keys": "<tool_call>f<arg_key>" + " " * 1_000_000,
    "NUL": "f(a=1)\0" * 10,
    "surrogate": "f(a='\ud800')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_neither_crashes_nor_stalls(name):
    begun = time.process_time()
    with suppress(ValueError, RecursionError):
        read_calls(HOSTILE[name])
    assert time.process_time() - begun < 3.0  # seconds
