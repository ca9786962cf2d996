import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler

from caopd.errors import ConfigError
from caopd.models import LoRA
from caopd.training.optimizing import check_groups, rate_factor, rate_schedule, warn_idle, weight_groups

SCHEDULES = ["constant_with_warmup", "cosine", "linear"]


def rates(schedule, num_warmup_steps, num_steps, lr=0.5):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = rate_schedule(optimizer, schedule, num_warmup_steps, num_steps)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("num_warmup_steps", "num_steps"), [(0, 1), (0, 5), (1, 2), (3, 10), (40, 800), (4, 4)])
def test_every_step_has_a_rate_and_after_the_warm_up_it_is_that_of_transformers(schedule, num_warmup_steps, num_steps):
    found = rates(schedule, num_warmup_steps, num_steps)
    assert min(found) > 0
    rising = found[:num_warmup_steps]
    assert rising == pytest.approx([0.5 * (step + 1) / (num_warmup_steps + 1) for step in range(num_warmup_steps)])
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps, num_steps)
    assert num_warmup_steps == 0 or optimizer.param_groups[0]["lr"] == 0, "the trap"
    for step in range(num_steps):
        if step >= num_warmup_steps:
            assert found[step] == optimizer.param_groups[0]["lr"], "bit for bit"
        optimizer.step()
        scheduler.step()


def test_the_rate_falls_as_its_name_says():
    cosine, linear = rate_factor("cosine", 2, 10), rate_factor("linear", 2, 10)
    for step in range(2, 11):
        share = (step - 2) / 8
        assert linear(step) == pytest.approx(1 - share)
        assert cosine(step) == pytest.approx(math.cos(math.pi * share / 2) ** 2)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def llama(request):
    size = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(**size, **heads, attention_bias=True, tie_word_embeddings=request.param)
    ).train()


def names_of(model, weights):
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {names[id(weight)] for weight in weights}


def test_matrices_alone_decay_and_norms_biases_and_embeddings_do_not(llama):
    decayed, bare = weight_groups(llama, "matrices")
    assert "weight_decay" not in decayed
    assert bare["weight_decay"] == 0
    expected = {
        name
        for name, _ in llama.named_parameters()
        if "norm" in name or name.endswith("bias") or name == "model.embed_tokens.weight"
    }
    assert names_of(llama, bare["params"]) == expected
    every = {name for name, _ in llama.named_parameters()}
    assert names_of(llama, decayed["params"]) == every - expected
    (one,) = weight_groups(llama, "all")
    assert [id(weight) for weight in one["params"]] == [id(weight) for weight in llama.parameters()]
    assert set(one) == {"params"}


def test_a_step_without_a_gradient_of_its_own_shrinks_matrices_by_rate_times_decay_alone(llama):
    before = copy.deepcopy(llama.state_dict())
    decayed = names_of(llama, weight_groups(llama, "matrices")[0]["params"])
    optimizer = torch.optim.AdamW(weight_groups(llama, "matrices"), lr=0.1, weight_decay=0.5)
    for weight in llama.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in llama.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] * (0.95 if name in decayed else 1.0))


def test_adapters_are_matrices_and_all_that_is_trained(llama):
    LoRA(rank=2).add_to(llama)
    (group,) = weight_groups(llama, "matrices")
    assert {name.partition(".lora_")[2][:1] for name in names_of(llama, group["params"])} == {"A", "B"}
    assert len(group["params"]) == sum(weight.requires_grad for weight in llama.parameters())


def test_a_checkpoint_with_other_groups_is_refused():
    check_groups([{}, {}], [{}, {}])
    with pytest.raises(ConfigError, match=r"2 groups of weights.*`model\.decay`.*it has 1.*`ckpt_path`"):
        check_groups([{}], [{}, {}])


def said(recwarn):
    return [text for each in recwarn if "learning rate" in (text := str(each.message))]


def test_a_first_step_that_changes_nothing_gives_a_warning(recwarn):
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    warn_idle(optimizer, 0)
    LinearLR(optimizer, start_factor=0.1)
    warn_idle(optimizer, 0)
    assert not said(recwarn)
    get_scheduler("linear", optimizer, 2, 10)
    with pytest.warns(UserWarning, match=r"step 0 has a learning rate of 0.*`model\.optimizer\.init_args\.lr`"):
        warn_idle(optimizer, 0)
    weight.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(weight, torch.ones(3)), "the warning is right"


@pytest.mark.parametrize("lr", [1e-5, 1e-3])
def test_weights_that_rounding_keeps_from_moving_give_a_warning(lr, recwarn):
    """Against a step of AdamW, whose first is of size lr, from weights of every size."""
    values = torch.logspace(-8, 2, 300).to(torch.bfloat16)
    weight = nn.Parameter(values.clone())
    optimizer = torch.optim.AdamW([weight], lr=lr, weight_decay=0.0)
    warn_idle(optimizer, 0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    share = float((weight.detach() == values).float().mean())
    (message,) = said(recwarn)
    assert int(message.partition("%")[0]) / 100 == pytest.approx(share, abs=0.02)
    assert "`model.source.dtype` to float32" in message


def test_full_precision_and_small_weights_give_no_warning(recwarn):
    weights = [nn.Parameter(torch.ones(10)), nn.Parameter(torch.full((10,), 1e-4, dtype=torch.bfloat16))]
    warn_idle(torch.optim.AdamW(weights, lr=1e-5), 0)
    assert not said(recwarn)
