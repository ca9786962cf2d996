"""The rollouts of a prompt share what vLLM has read of it, also of a short one."""

from typing import ClassVar

from caopd.rollouts import RolloutRequest, Sampling, VLLMEngine, VLLMOptions
from caopd.rollouts.vllm.local import LocalVLLM
from caopd.vllm_host.host import VLLMHost
from tests.needs import needs_vllm

pytestmark = needs_vllm


class Counting(VLLMHost):
    """Keeps vLLM's own counters."""

    counters: ClassVar[dict[str, float]] = {}

    def sample(self, *arguments):
        found = super().sample(*arguments)
        Counting.counters = {each.name: each.value for each in self.llm.get_metrics() if hasattr(each, "value")}
        return found


class CountingVLLM(LocalVLLM):
    _host = Counting


def test_a_prompt_of_forty_tokens_is_read_once(policy, tokenizer):
    """Eight rollouts ask for 320 tokens; seven of them find the first whole block, of 32, in the cache."""
    options = VLLMOptions(kv_cache_gib=0.25, arguments={"disable_log_stats": False})
    engine = VLLMEngine("in_process", options)
    engine._backend = CountingVLLM(options, in_process=True)
    engine.start(tokenizer)
    engine.sync(policy, 0)
    engine.generate([RolloutRequest(tuple(range(5, 45)), 0)], 8, Sampling(max_new_tokens=4))
    engine.close()
    counters = Counting.counters
    assert (counters["vllm:prefix_cache_queries"], counters["vllm:prefix_cache_hits"]) == (8 * 40, 7 * 32)
