"""What every rollout engine promises. An engine joins by one line in ``ENGINES``.

vLLM is the real one, on a GPU or on the CPU. Starting it takes long, so tests share those that have started.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.errors import RolloutError
from caopd.models import LanguageModel, ModelSource
from caopd.rollouts import (
    AutoEngine,
    RolloutEngine,
    RolloutRequest,
    Sampling,
    ServerOptions,
    TransformersEngine,
    VLLMEngine,
    VLLMOptions,
)
from caopd.rollouts.progress import progress_to
from caopd.rounds.encoding import SampleEncoder
from caopd.tasks import DrawTask
from caopd.types import StopReason
from tests.needs import needs_vllm
from tests.vllm_servers import KEY

SERVER_PORT = []
"""Of the vLLM server, once a test needs it."""
KEY_VARIABLE = "CAOPD_TEST_KEY"


def server_engine(batch_size: int) -> VLLMEngine:
    """Give an engine of the vLLM server, which is reached under two names, as if there were two."""
    os.environ[KEY_VARIABLE] = KEY
    urls = [f"http://127.0.0.1:{SERVER_PORT[0]}", f"http://localhost:{SERVER_PORT[0]}/"]
    servers = ServerOptions(urls=urls, concurrency=batch_size, api_key_variable=KEY_VARIABLE)
    return VLLMEngine(mode="server", servers=servers)


ENGINES: dict[str, Callable[[int], RolloutEngine]] = {
    "transformers": lambda batch_size: TransformersEngine(batch_size=batch_size),
    "auto": lambda batch_size: AutoEngine(batch_size=batch_size),
    "vllm": lambda batch_size: VLLMEngine(options=VLLMOptions(kv_cache_gib=0.25, max_num_seqs=batch_size)),
    "in_process": lambda batch_size: VLLMEngine("in_process", VLLMOptions(kv_cache_gib=0.25, max_num_seqs=batch_size)),
    "server": server_engine,
}
"""Name -> factory that takes the most completions sampled at once."""
WITH_VLLM = {"vllm", "in_process", "server"}
"""These start one."""

WILD = Sampling(temperature=1.5, max_new_tokens=6)
FILTERED = Sampling(temperature=2.0, top_k=20, top_p=0.95, max_new_tokens=6)
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
BATCH_SIZE = 64


@pytest.fixture(scope="module")
def running_engines():
    """Engines by name and batch size; closed when all tests are over."""
    engines = {}
    yield engines
    for engine in engines.values():
        engine.close()


@pytest.fixture(params=[pytest.param(name, marks=needs_vllm if name in WITH_VLLM else ()) for name in ENGINES])
def make_engine(request, tokenizer, running_engines):
    """Gives engines of a batch size, with a policy or as they are before the first one."""
    if request.param == "server":
        SERVER_PORT[:] = [request.getfixturevalue("server")[1]]

    def make(policy: LanguageModel | None = None, batch_size: int = BATCH_SIZE, version: int = 0):
        if policy is None:
            engine = ENGINES[request.param](batch_size)
            engine.start(tokenizer)
            return engine
        if (request.param, batch_size) not in running_engines:
            if request.param == "in_process":  # a process holds one vLLM at a time
                for key in [key for key in running_engines if key[0] == request.param]:
                    running_engines.pop(key).close()
            running_engines[request.param, batch_size] = make(None, batch_size)
        engine = running_engines[request.param, batch_size]
        engine.sync(policy, version)
        return engine

    return make


@pytest.fixture
def engine(make_engine, policy):
    return make_engine(policy)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Prompts of different lengths, one of them a single token."""
    examples = DrawTask(num_train=5).examples("train")
    encoded = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8).student_prompts(examples)
    long = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8).student_prompts(examples[:1])[0] * 4
    return [*encoded, long, tuple(tokenizer("ab c", add_special_tokens=False)["input_ids"]), encoded[0][-1:]]


def requests_of(prompts, seed=0):
    return [RolloutRequest(prompt, 1_000 * seed + n) for n, prompt in enumerate(prompts)]


def tokens(groups):
    return [[rollout.token_ids for rollout in group] for group in groups]


def forced_logprobs(policy, prompt, completion):
    """Log-probabilities of a completion by one forward pass of the plain model, without cache or padding."""
    with torch.no_grad():
        logits_LV = policy.hf(torch.tensor([[*prompt, *completion]])).logits[0].double()
    predicting_TV = logits_LV[len(prompt) - 1 : -1].log_softmax(-1)
    return predicting_TV[torch.arange(len(completion)), list(completion)]


def check_logprobs(policy, requests, groups):
    for request, group in zip(requests, groups, strict=True):
        for rollout in group:
            assert len(rollout.logprobs) == len(rollout.token_ids)
            expected = forced_logprobs(policy, request.prompt_ids, rollout.token_ids)
            actual = torch.tensor(rollout.logprobs, dtype=torch.float64)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def greedy_by_hand(policy, prompt, max_new_tokens):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(max_new_tokens):
            ids.append(policy.hf(torch.tensor([ids])).logits[0, -1].argmax().item())
            if ids[-1] in policy.stop_token_ids:
                break
    return tuple(ids[len(prompt) :])


def test_every_request_gets_its_rollouts_in_order(engine, policy, prompts):
    requests = requests_of(prompts)
    for num_rollouts in (1, 3):
        groups = engine.generate(requests, num_rollouts, WILD)
        assert [len(group) for group in groups] == [num_rollouts] * len(requests)
        # Only the right prompt explains the recorded log-probabilities.
        check_logprobs(policy, requests, groups)


def test_no_request_gets_no_rollouts(engine):
    assert engine.generate([], 2, WILD) == []


@pytest.mark.parametrize("sampling", [WILD, FILTERED, GREEDY], ids=["wild", "filtered", "greedy"])
@pytest.mark.parametrize("num_rollouts", [1, 4])
def test_logprobs_are_those_of_the_students_unscaled_distribution(engine, policy, prompts, sampling, num_rollouts):
    """With several rollouts a prompt is read once, with one it is not: both are the student's numbers."""
    requests = requests_of(prompts, seed=1)
    check_logprobs(policy, requests, engine.generate(requests, num_rollouts, sampling))


def test_the_text_is_the_decoded_ids(engine, tokenizer, prompts):
    for group in engine.generate(requests_of(prompts), 4, WILD):
        for rollout in group:
            assert rollout.text == tokenizer.decode(
                list(rollout.token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )


def test_greedy_rollouts_are_those_of_an_argmax_loop(engine, policy, prompts):
    groups = engine.generate(requests_of(prompts), 2, GREEDY)
    for prompt, group in zip(prompts, groups, strict=True):
        expected = greedy_by_hand(policy, prompt, GREEDY.max_new_tokens)
        assert [rollout.token_ids for rollout in group] == [expected, expected]
    assert tokens(engine.generate(requests_of(prompts, seed=3), 2, GREEDY)) == tokens(groups)


def test_a_seed_gives_the_same_rollouts_whatever_else_is_sampled(engine, prompts):
    requests = requests_of(prompts)
    for num_rollouts in (1, 4):
        together = tokens(engine.generate(requests, num_rollouts, WILD))
        assert tokens(engine.generate(requests, num_rollouts, WILD)) == together, num_rollouts
        assert tokens(engine.generate(requests[::-1], num_rollouts, WILD)) == together[::-1], num_rollouts
        alone = [tokens(engine.generate([request], num_rollouts, WILD))[0] for request in requests]
        assert alone == together, num_rollouts


def test_more_prompt_tokens_than_are_read_at_once_change_nothing(engine, policy, prompts):
    """Fifty prompts of 400 tokens: an engine that reads prompts in pieces must not lose its place in the streams."""
    long = [((index + 5, *prompts[0]) * 60)[:400] for index in range(50)]
    requests = requests_of(long)
    together = engine.generate(requests, 2, WILD)
    check_logprobs(policy, requests, together)
    assert tokens(engine.generate(requests[37:38], 2, WILD)) == tokens(together)[37:38]


def test_rollouts_of_other_seeds_and_of_the_same_group_differ(engine, prompts):
    request, other = RolloutRequest(prompts[0], 1), RolloutRequest(prompts[0], 2)
    (first,), (second,) = engine.generate([request], 8, WILD), engine.generate([other], 8, WILD)
    assert tokens([first]) != tokens([second])
    assert len(set(tokens([first])[0])) > 4


def test_left_padding_changes_nothing(engine, prompts):
    short, long = prompts[0], prompts[5]
    assert len(long) > 3 * len(short)
    for num_rollouts in (1, 3):
        (alone,) = engine.generate([RolloutRequest(short, 5)], num_rollouts, WILD)
        padded, _ = engine.generate([RolloutRequest(short, 5), RolloutRequest(long, 6)], num_rollouts, WILD)
        for first, second in zip(alone, padded, strict=True):
            assert first.token_ids == second.token_ids
            assert first.logprobs == pytest.approx(second.logprobs, abs=1e-4)


@pytest.mark.parametrize("max_new_tokens", [1, 2, 6])
def test_rollouts_end_with_a_stop_token_or_at_the_length_limit(engine, policy, prompts, max_new_tokens):
    sampling = Sampling(temperature=1.5, max_new_tokens=max_new_tokens)
    rollouts = [rollout for group in engine.generate(requests_of(prompts), 16, sampling) for rollout in group]
    for rollout in rollouts:
        *inner, last = rollout.token_ids
        assert not set(inner) & set(policy.stop_token_ids)
        if rollout.stop_reason is StopReason.EOS:
            assert last in policy.stop_token_ids
        else:
            assert last not in policy.stop_token_ids
            assert len(rollout.token_ids) == max_new_tokens
    if max_new_tokens == 6:
        assert {rollout.stop_reason for rollout in rollouts} == set(StopReason)


def test_every_stop_token_of_the_generation_config_stops(make_engine, tokenizer, prompts, tmp_path):
    directory = Path(shutil.copytree(ModelSource().location, tmp_path / "model"))
    path = directory / "generation_config.json"
    segment = tokenizer.convert_tokens_to_ids("\nConfidence: ")
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [2, segment]}))
    policy = ModelSource(str(directory)).load_model(tokenizer)
    for group in make_engine(policy).generate(requests_of(prompts[:5]), 2, GREEDY):
        for rollout in group:
            assert rollout.stop_reason is StopReason.EOS
            assert rollout.token_ids[-1] == segment
            assert len(rollout.token_ids) == 2


def test_rollouts_carry_the_version_of_their_weights(make_engine, policy, prompts):
    engine = make_engine(policy, version=7)
    for version in (7, 8):
        engine.sync(policy, version)
        groups = engine.generate(requests_of(prompts[:2]), 2, WILD)
        assert {rollout.policy_version for group in groups for rollout in group} == {version}


def test_rollouts_come_from_the_weights_of_the_last_sync(engine, policy, prompts):
    student = copy.deepcopy(policy)
    requests = requests_of(prompts[:3])
    for version in (1, 2):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter *= 1.1
        engine.sync(student, version)
        check_logprobs(student, requests, engine.generate(requests, 2, WILD))


def test_generating_before_a_sync_is_an_error(make_engine, prompts):
    with pytest.raises(RolloutError, match="sync"):
        make_engine().generate(requests_of(prompts[:1]), 1, WILD)


@pytest.mark.parametrize("training", [True, False])
def test_the_policy_is_left_as_it_was(make_engine, policy, prompts, training):
    student = copy.deepcopy(policy).train(training)
    before = [parameter.detach().clone() for parameter in student.parameters()]
    make_engine(student).generate(requests_of(prompts[:2]), 2, WILD)
    assert {module.training for module in student.modules()} == {training}
    assert all(map(torch.equal, before, student.parameters()))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in student.parameters())


def test_the_callers_random_state_is_left_as_it_was(engine, prompts):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    engine.generate(requests_of(prompts[:2]), 2, WILD)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch_size", [3, pytest.param(1_000, marks=pytest.mark.slow)])
def test_the_batch_size_changes_no_rollout(make_engine, policy, prompts, batch_size):
    """The last test: it starts engines of other sizes."""
    requests = requests_of(prompts)
    expected = tokens(make_engine(policy).generate(requests, 4, WILD))
    assert tokens(make_engine(policy, batch_size).generate(requests, 4, WILD)) == expected


@pytest.mark.parametrize("sampling", [WILD, GREEDY])
def test_who_listens_is_told_how_far_sampling_has_come(engine, prompts, sampling):
    requests, told = requests_of(prompts), []
    with progress_to(lambda done, total: told.append((done, total))):
        heard = engine.generate(requests, 3, sampling)
    counts = [done for done, _ in told]
    assert {total for _, total in told} == {3 * len(requests)}
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == 3 * len(requests)
    before = len(told)
    assert tokens(engine.generate(requests, 3, sampling)) == tokens(heard)
    assert len(told) == before
