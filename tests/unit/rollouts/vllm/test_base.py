import importlib.util

import pytest

from caopd.errors import ConfigError
from caopd.models import LanguageModel
from caopd.rollouts import RolloutRequest, Sampling, VLLMOptions
from caopd.rollouts.vllm.base import sampling_arguments
from caopd.rollouts.vllm.local import LocalVLLM
from caopd.rollouts.vllm.placement import Place

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")
STORED = {
    "temperature": 0.2,
    "top_p": 0.3,
    "top_k": 4,
    "min_p": 0.5,
    "repetition_penalty": 1.6,
    "presence_penalty": 0.7,
    "frequency_penalty": 0.8,
    "max_tokens": 9,
}
"""What a vLLM server reads from a model's generation config, unless it is told not to."""


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.6, 0.95, 20, 32), Sampling(0.0)])
def test_a_request_leaves_nothing_to_a_servers_defaults(sampling):
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    arguments = sampling_arguments(RolloutRequest((5, 6), seed=3), 4, sampling, (2, 7))
    request = CompletionRequest(model="model", prompt=[5, 6], **arguments)
    plain, filled = (request.to_sampling_params(request.max_tokens, defaults) for defaults in ({}, STORED))
    assert repr(filled) == repr(plain)
    assert (plain.temperature, plain.max_tokens) == (sampling.temperature, sampling.max_new_tokens)


def test_a_rank_that_vllm_has_no_room_for_is_refused_before_it_starts(policy):
    wide = LanguageModel(policy.hf, policy.stop_token_ids, policy.pad_token_id, lora_rank=600)
    backend = LocalVLLM(VLLMOptions(lora="adapter"))
    with pytest.raises(ConfigError, match=r"`rank` of LoRA to be at most 512.*600.*`lora: merged`"):
        backend.start(wide, Place())
    backend.close()
