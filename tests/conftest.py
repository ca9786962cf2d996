"""What several suites share: the embedded model, a byte-level tokenizer, and builders of carriers."""

import os
import resource

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import distributed
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from xdist.scheduler import LoadFileScheduling

from caopd.confidence import InlineConfidence
from caopd.models import LanguageModel, ModelSource
from caopd.reading.thinking import thoughts
from caopd.types import (
    AnswerOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)
from tests.vllm_servers import vllm_server

CORPUS = [
    "The answer is B.\nConfidence: 0.90",
    "the answer might be C\nConfidence: 0.15\n",
    "<answer>\nD\n</answer>\nConfidence: 1.00",
    "Café crème, naïve\n\nConfidence: 0.38\nDone",
    *["it is B.\nConfidence: 0.90\nDone", "it is C.\nConfidence: 0.90\nDone"] * 8,
]


def starts_vllm(nodeid):
    """Whether a test starts vLLM."""
    return "vllm" in nodeid or nodeid.startswith("tests/contracts/test_engines.py")


class ByFile(LoadFileScheduling):
    """Keeps the tests of a file in one process, where they share costly fixtures, and those that start vLLM in one.

    Marks of xdist's own ``loadgroup`` would say the same, but xdist 3.8 does not find them under pytest 9.2.
    """

    def _split_scope(self, nodeid):
        return "vllm" if starts_vllm(nodeid) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """How ``pytest -n`` shares out tests."""
    return ByFile(config, log)


OF_PROCESS_GROUPS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_process_group_stays(request):
    """Ends the process group that a strategy has made here; another test's processes would take its port for theirs."""
    before = {name: os.environ.get(name) for name in OF_PROCESS_GROUPS}
    yield
    if distributed.is_initialized() and not starts_vllm(request.node.nodeid):  # vLLM's own serves a file of tests
        distributed.destroy_process_group()
    for name, value in before.items():
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer: ``"\\nConfidence: "`` is one token, and so is every value."""
    return ModelSource().load_tokenizer()


@pytest.fixture(scope="session")
def policy(tokenizer) -> LanguageModel:
    """The embedded model; nobody changes its weights."""
    return ModelSource().load_model(tokenizer)


@pytest.fixture(scope="session", params=["words", "across_words"])
def byte_level_tokenizer(request) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; ``across_words`` also has tokens that reach over line ends and words."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=request.param == "words")
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


@pytest.fixture(scope="session")
def server():
    """The process and the port of a vLLM server, which is one for all tests: starting it takes long."""
    with vllm_server() as (process, port):
        yield process, port


@pytest.fixture
def largest_file():
    """Limits the size of a file, in bytes, as a disk does that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def sampled():
    """Builds a verified rollout of sampled ids, its text decoded and its confidence read as in a run."""

    def build(
        tokenizer: PreTrainedTokenizerBase,
        ids: list[int],
        stop_reason: StopReason = StopReason.EOS,
        confidence_format: InlineConfidence = InlineConfidence(),
    ) -> VerifiedRollout:
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        rollout = Rollout(tuple(ids), text, stop_reason, (-0.5,) * len(ids), policy_version=0)
        verdict = Verdict(False, None, AnswerOutcome.MISSING)
        return VerifiedRollout(rollout, verdict, confidence_format.parse(text))

    return build


@pytest.fixture(scope="session")
def group_of():
    """Builds a group from (text, correct) pairs; a completion's answer is its first line."""

    def build(example: Example, completions: list[tuple[str, bool]], mu_hat: float | None = None) -> VerifiedGroup:
        rollouts = []
        for text, correct in completions:
            reading: ConfidenceReading = InlineConfidence().parse(text)
            verdict = Verdict(correct, text.split("\n")[0], AnswerOutcome.PARSED)
            rollout = Rollout((1, 2), text, StopReason.EOS, (-0.5, -1.0), policy_version=3)
            rollouts.append(VerifiedRollout(rollout, verdict, reading, thoughts=tuple(thoughts(text))))
        return VerifiedGroup(example, (1, 2), tuple(rollouts), (mu_hat,) * len(rollouts))

    return build
