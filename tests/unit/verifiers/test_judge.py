import json

import pytest

from caopd.errors import ConfigError, DataError, UnansweredError
from caopd.types import AnswerOutcome
from caopd.verifiers import Judge, ServedModel
from tests.judges import serving


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("caopd.verifiers.served_model._SECONDS_BETWEEN_TRIES", 0.0)


def judge(url, tmp_path, name="grader", **arguments):
    return Judge(ServedModel(url, name), folder=str(tmp_path / "judged"), **arguments)


TARGET = json.dumps({"question": "Who wrote it?", "answers": ["Mark Twain"]})


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("CORRECT", True),
        ("INCORRECT", False),
        ("<think>CORRECT?</think> incorrect.", False),
        ("It is **Correct**", True),
        ("INCORRECT. The correct answer is Mark Twain.", False),
        ("**CORRECT**\nIt is not incorrect.", True),
        ("Incorrect because he wrote another one", False),
    ],
)
def test_the_model_grades_and_is_asked_once(tmp_path, reply, correct):
    with serving(lambda prompt: (200, reply)) as (url, asked):
        for _ in range(2):
            verdict = judge(url, tmp_path).verify("<answer>It was Twain.</answer>", TARGET)
            assert (verdict.correct, verdict.answer) == (correct, "it was twain")
            assert verdict.outcome is AnswerOutcome.PARSED
        (request,) = asked
        assert request["path"] == "/v1/chat/completions"
        assert request["body"]["temperature"] == 0
        assert request["body"]["model"] == "grader"
        prompt = request["body"]["messages"][0]["content"]
        for part in ("Question: Who wrote it?", "Accepted answers: Mark Twain", "Answer to grade: It was Twain."):
            assert part in prompt
        judge(url, tmp_path, name="another").verify("<answer>It was Twain.</answer>", TARGET)
        judge(url, tmp_path).verify("<answer>It was Poe.</answer>", TARGET)
        assert len(asked) == 3


def test_braces_in_texts_are_no_fields(tmp_path):
    with serving(lambda prompt: (200, "CORRECT")) as (url, asked):
        target = Judge(ServedModel(url, "m")).target("What is {answer}?", ["{question}"])
        judge(url, tmp_path).verify("<answer>{accepted} {0}</answer>", target)
        prompt = asked[0]["body"]["messages"][0]["content"]
    for part in ("Question: What is {answer}?", "Accepted answers: {question}", "Answer to grade: {accepted} {0}"):
        assert part in prompt


def test_an_accepted_answer_and_none_need_no_model(tmp_path):
    nobody = judge("http://127.0.0.1:9/v1", tmp_path)
    assert nobody.verify("mark twain.", TARGET).correct
    assert nobody.verify("", TARGET).outcome is AnswerOutcome.MISSING
    assert nobody.verify("<answer>Twain", TARGET).outcome is AnswerOutcome.MALFORMED


def test_a_text_that_marks_no_answer_is_graded_whole(tmp_path):
    with serving(lambda prompt: (200, "CORRECT" if "It was\nTwain" in prompt else "INCORRECT")) as (url, _):
        verdict = judge(url, tmp_path).verify("It was\nTwain", TARGET)
    assert (verdict.correct, verdict.outcome) == (True, AnswerOutcome.OTHER_FORM)


@pytest.mark.parametrize(
    "reply",
    [
        *(
            "",
            "perhaps",
            "CORRECT, or INCORRECT",
            "This is not correct.",
            "NOT CORRECT",
            "It isn't correct",
            "Correct?",
        ),
        *("Is it correct? No.", "Not incorrect"),
    ],
)
def test_a_reply_that_does_not_grade_is_no_verdict_and_not_kept(tmp_path, reply):
    with serving(lambda prompt: (200, reply)) as (url, asked):
        for _ in range(2):
            with pytest.raises(UnansweredError, match="grader to reply CORRECT or INCORRECT"):
                judge(url, tmp_path).verify("Poe", TARGET)
        assert len(asked) == 2


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_damaged_verdict_is_an_error_that_names_the_file(tmp_path, content):
    with serving(lambda prompt: (200, "CORRECT")) as (url, _):
        judge(url, tmp_path).verify("Poe", TARGET)
        (kept,) = (tmp_path / "judged").rglob("*.json")
        kept.write_text(content)
        with pytest.raises(DataError, match=rf"Expected {kept} to keep a judge's verdict.*Delete it: "):
            judge(url, tmp_path).verify("Poe", TARGET)


def test_arguments_of_the_chat_template_are_sent_where_there_are_some(tmp_path):
    with serving(lambda prompt: (200, "CORRECT")) as (url, asked):
        ServedModel(url, "m").reply("x")
        ServedModel(url, "m", template_arguments={"enable_thinking": False}).reply("x")
    assert "chat_template_kwargs" not in asked[0]["body"]
    assert asked[1]["body"]["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_busy_server_is_asked_again(tmp_path, no_waiting):
    statuses = iter([503, 429, 200])
    with serving(lambda prompt: (next(statuses), "CORRECT")) as (url, asked):
        assert judge(url, tmp_path).verify("Twain", TARGET).correct
        assert len(asked) == 3


def test_a_server_that_is_not_there_is_no_verdict(tmp_path, no_waiting):
    with pytest.raises(UnansweredError, match=r"after 3 tries: .*ConnectionError.*Start the server, or correct `url`"):
        judge("http://127.0.0.1:9/v1", tmp_path).verify("Twain", TARGET)


@pytest.mark.parametrize(("status", "reply"), [(404, "no such model"), (200, b"<html>"), (200, b'{"choices": []}')])
def test_a_request_that_is_refused_or_answered_by_another_interface_is_an_error(tmp_path, status, reply):
    with serving(lambda prompt: (status, reply)) as (url, _), pytest.raises(ConfigError, match=r"Expected http://127"):
        judge(url, tmp_path).verify("Twain", TARGET)


def test_the_key_is_sent_and_must_be_there(tmp_path, monkeypatch):
    with serving(lambda prompt: (200, "CORRECT")) as (url, asked):
        model = ServedModel(url, "m", key_variable="KEY_OF_THE_TEST")
        with pytest.raises(ConfigError, match="environment variable KEY_OF_THE_TEST"):
            model.reply("x")
        monkeypatch.setenv("KEY_OF_THE_TEST", "secret")
        assert model.reply("x") == "CORRECT"
        assert [each["key"] for each in asked] == ["Bearer secret"]


@pytest.mark.parametrize("target", ["Mark Twain", "[]", '{"question": "q"}'])
def test_a_target_of_another_verifier_is_an_error(tmp_path, target):
    with pytest.raises(DataError, match=r"a JSON object of `question` and `answers`"):
        judge("http://127.0.0.1:9/v1", tmp_path).verify("", target)


@pytest.mark.parametrize(
    "instruction", ["Grade it.", "{question} {accepted}", "{question} {answer} {answer} {accepted}"]
)
def test_an_instruction_without_its_fields_is_refused(instruction):
    with pytest.raises(ConfigError, match=r"`instruction` of Judge to hold \{question\}"):
        Judge(ServedModel("http://x", "m"), instruction=instruction)
