"""Rollouts of a vLLM that has fallen behind are noticed, whatever it is that is stale. vLLM runs in this process."""

import copy
from functools import partial

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.errors import RolloutError
from caopd.models import LanguageModel, LoRA, ModelSource, make_teacher
from caopd.models.tiny import build_model
from caopd.rollouts import RolloutRequest, Sampling, VLLMEngine, VLLMOptions
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.parity import ParityConfig, check_parity
from caopd.tasks import DrawTask
from caopd.vllm_host.host import VLLMHost, Weights
from tests.needs import needs_vllm
from tests.vllm_servers import without_head

pytestmark = needs_vllm

SAMPLING = Sampling(temperature=1.5, max_new_tokens=8)
MAX_MODEL_LEN = 384
"""Tokens; shorter than the model's own limit."""
EXACT = 1e-4
"""Nats; what float32 explains, far below the engine's own limit."""


@pytest.fixture(scope="module")
def start(tokenizer):
    """Gives an engine that takes adapters merged or apart: the one that runs, since a process holds one vLLM at a time.

    It must be sent all weights anew, whatever the test before has left in it.
    """
    running = {}

    def make(lora="merged"):
        if lora not in running:
            while running:
                running.popitem()[1].close()
            options = VLLMOptions(kv_cache_gib=0.25, max_model_len=MAX_MODEL_LEN, lora=lora)
            running[lora] = VLLMEngine(mode="in_process", options=options, max_restarts=0)
            running[lora].start(tokenizer)
        running[lora].rest()
        return running[lora]

    yield make
    for engine in running.values():
        engine.close()


@pytest.fixture
def break_backend(monkeypatch):
    """Puts a faulty method, which gets the real one and its arguments, in place of one of the engine's backend."""

    def change(engine, name, faulty):
        monkeypatch.setattr(engine._backend, name, partial(faulty, getattr(engine._backend, name)))

    return change


def head_stays_behind(load, policy, delivery, version):
    """Sends all weights but the head."""
    load(policy, without_head(delivery), version)


def version_stays(load, policy, delivery, version):
    """Ignores all weights but the first."""
    if version == 0:
        load(policy, delivery, version)


def loses_files(do, method, *arguments):
    """Hands over a folder that its vLLM cannot see."""
    if method == "take":
        arguments = (Weights("/nowhere", arguments[0].number), *arguments[1:])
    return do(method, *arguments)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Some questions, in front of each 300 tokens of earlier ones: what a prefix cache keeps."""
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8)
    encoded = encoder.student_prompts(DrawTask(num_train=64).examples("train"))
    before = sum(encoded[4:], ())[:300]
    return [(*before, *prompt) for prompt in encoded[:4]]


def sample(engine, prompts):
    return engine.generate([RolloutRequest(prompt, 7 * n) for n, prompt in enumerate(prompts)], 2, SAMPLING)


def compare(engine, policy, prompts, limit=EXACT):
    return check_parity(policy, prompts, sample(engine, prompts), SAMPLING, ParityConfig(8, limit), engine.rounding)


def changed(policy, scale=0.02):
    student = copy.deepcopy(policy)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            if weight.requires_grad:
                weight += scale * torch.randn_like(weight)
    return student


def test_synced_weights_are_the_students(start, policy, prompts):
    engine = start()
    for version, student in enumerate([policy, changed(policy), changed(policy, 0.1)]):
        engine.sync(student, version)
        assert compare(engine, student, prompts)["parity_max"] < EXACT
    assert engine.rounding == pytest.approx(0.002)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # what is compared with it computes in 16 bits there
        assert engine.rounding == pytest.approx(0.05)


@pytest.mark.parametrize("stale", ["head", "cache"])
def test_what_stays_behind_is_noticed(start, policy, prompts, break_backend, monkeypatch, stale):
    engine = start()
    engine.sync(policy, 0)
    compare(engine, policy, prompts)
    if stale == "head":
        break_backend(engine, "load", head_stays_behind)
    else:  # keys and values of earlier weights
        monkeypatch.setattr(VLLMHost, "_forget_prefixes", lambda host: None)
    student = changed(policy)
    engine.sync(student, 1)
    with pytest.raises(RolloutError, match="not on-policy"):
        compare(engine, student, prompts, limit=None)


def test_weights_that_change_behind_the_engines_back_are_noticed(start, policy, prompts):
    engine, student = start(), copy.deepcopy(policy)
    engine.sync(student, 0)
    for weight in student.parameters():
        weight.data.mul_(1.1)  # not counted by autograd
    engine.sync(student, 0)
    with pytest.raises(RolloutError, match="not on-policy"):
        compare(engine, student, prompts, limit=None)


def test_weights_that_change_in_place_are_sent_whatever_their_version(start, policy, prompts):
    engine, student = start(), copy.deepcopy(policy)
    engine.sync(student, 0)
    student.load_state_dict(changed(policy).state_dict())
    engine.sync(student, 0)
    compare(engine, student, prompts)


def test_a_wrong_version_ends_the_run(start, policy, prompts, break_backend):
    engine = start()
    break_backend(engine, "load", version_stays)
    engine.sync(policy, 0)
    sample(engine, prompts)
    engine.sync(changed(policy), 1)
    with pytest.raises(RolloutError, match="version 0 in place of 1"):
        sample(engine, prompts)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(temperature=0.0, max_new_tokens=8)])
def test_log_probabilities_that_are_no_numbers_are_an_error(start, policy, prompts, sampling, value):
    """vLLM goes on sampling from such logits without a word."""
    engine, broken = start(), copy.deepcopy(policy)
    with torch.no_grad():
        broken.hf.model.norm.weight[3] = value
    engine.sync(broken, 5)
    with pytest.raises(RolloutError, match=r"vLLM's log-probabilities .* policy version 5 to be finite"):
        engine.generate([RolloutRequest(prompts[0], 0)], 2, sampling)


def test_weights_that_are_not_there_are_an_error(start, policy, break_backend):
    """vLLM itself keeps the old ones, with a warning."""
    engine = start()
    break_backend(engine, "_do", loses_files)
    with pytest.raises(
        FileNotFoundError, match=r"Expected 30 weights in .*, but this process sees 0.*weights_directory"
    ):
        engine.sync(policy, 0)


def test_a_prompt_that_vllm_would_cut_is_an_error(start, policy, prompts):
    engine = start()
    engine.sync(policy, 0)
    longest = (prompts[0] * 2)[: MAX_MODEL_LEN - SAMPLING.max_new_tokens]
    sample(engine, [longest])
    with pytest.raises(ValueError, match=f"longer than the {MAX_MODEL_LEN} tokens"):
        sample(engine, [(*longest, 5)])


@pytest.mark.slow
def test_a_policy_of_another_architecture_gets_a_vllm_of_its_own(start, policy, tokenizer, prompts):
    """As an external teacher between two syncs of the student."""
    torch.manual_seed(0)
    other = LanguageModel(build_model(tokenizer, width=96, num_layers=2).eval(), policy.stop_token_ids, 0)
    engine = start()
    for student in (policy, other, policy):
        engine.sync(student, 0)
        compare(engine, student, prompts)


def test_an_untied_head_arrives(start, tokenizer, prompts, tmp_path):
    tied = ModelSource().load_model(tokenizer).hf
    tied.config.tie_word_embeddings = False
    tied.lm_head.weight = torch.nn.Parameter(1.5 * tied.lm_head.weight.detach())
    tied.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student = ModelSource(str(tmp_path)).load_model(tokenizer)
    assert student.hf.lm_head.weight is not student.hf.get_input_embeddings().weight
    engine = start()
    for version in range(2):
        engine.sync(student, version)
        compare(engine, student, prompts)
        with torch.no_grad():
            student.hf.lm_head.weight *= 1.2


@pytest.mark.parametrize(
    ("lora", "rank"), [("merged", 4), pytest.param("adapter", 12, marks=pytest.mark.slow), ("adapter", 4)]
)
def test_lora_arrives_merged_or_as_adapter(start, tokenizer, prompts, lora, rank):
    torch.manual_seed(1)
    student = ModelSource(lora=LoRA(rank=rank)).load_model(tokenizer)
    engine = start(lora)
    for version in range(3):
        engine.sync(student, version)
        groups = sample(engine, prompts)
        assert {rollout.policy_version for group in groups for rollout in group} == {version}
        compare(engine, student, prompts)
        student = changed(student)  # larger changes make logits so large that float32 rounds by more


@pytest.mark.slow
def test_an_adapter_is_not_left_on_another_model(start, policy, tokenizer, prompts):
    """An averaged teacher has adapters and a base of its own, an external one none."""
    student = changed(ModelSource(lora=LoRA(rank=4)).load_model(tokenizer), 0.1)
    teacher = changed(make_teacher(student).requires_grad_(), 0.1)
    engine = start("adapter")
    for model in (student, teacher, student, policy, teacher):
        engine.sync(model, 5)
        compare(engine, model, prompts)
