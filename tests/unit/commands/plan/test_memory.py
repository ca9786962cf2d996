"""Memory, part by part, compared with tensors of tiny models and with counts made by hand."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from caopd.commands.plan.devices import CPU, GIB, GPUS, Device
from caopd.commands.plan.memory import (
    activations,
    engine_cache_tokens,
    engine_memory,
    engine_weights,
    gathered,
    generation_cache,
    held_weights,
    logits,
    parts,
    rollout_copies,
    step_temporaries,
    student_activations,
    teacher_activations,
    teacher_weights,
    training_copies,
)
from caopd.commands.plan.micro_batches import MicroBatch, Rows
from caopd.commands.plan.plan import make_plan
from caopd.commands.plan.setup import EngineSetup, Lengths, Setup, StudentSetup, TeacherSetup
from caopd.commands.plan.timing import seconds
from caopd.commands.plan.traffic import BETWEEN, TO_VLLM, moved
from caopd.models import ModelSize

CONFIG = LlamaConfig(
    vocab_size=90,
    hidden_size=72,
    intermediate_size=176,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    num_hidden_layers=3,
    tie_word_embeddings=False,
)
SIZE = ModelSize.of(CONFIG)
PARAMETERS, LAYER, EMBEDDING = SIZE.num_parameters, SIZE.layer_parameters, 90 * 72
MACHINE = Device(CPU, 8 * GIB, 1e11, 1e11, 1e10, 1e10)
GPU = GPUS["h100-80g"]
STUDENT = StudentSetup(
    size=SIZE,
    dtype="float32",
    trained=PARAMETERS,
    trained_dtype="float32",
    adapted=False,
    compute_dtype="float32",
    attention="sdpa",
    checkpointing=False,
    optimizer_bytes=8.0,
)
TEACHER = TeacherSetup(SIZE, "float32", is_copy=True, moves=True, with_student=False, attention="sdpa")
TYPICAL = MicroBatch(2, 2 * 6, Rows(2, 16, True, 32), Rows(1, 32, False, 32))
LARGEST = MicroBatch(2, 2 * 8, Rows(2, 20, True, 40), Rows(1, 38, False, 38))
SETUP = Setup(
    student=STUDENT,
    teacher=TEACHER,
    engine=EngineSetup("transformers", 16),
    processes=1,
    sharded=False,
    num_prompts=8,
    num_rollouts=4,
    num_samples=32,
    num_steps=4,
    typical=[TYPICAL] * 16,
    largest=[TYPICAL, LARGEST],
    chunk_size=64,
    prompts=Lengths(10, 12),
    teacher_prompts=Lengths(20, 22),
    completions=Lengths(6, 8),
    held_out_rows=4,
    held_out_length=8,
)
ADAPTED = replace(STUDENT, trained=SIZE.adapter_parameters(4, None), adapted=True)
MIXED = replace(STUDENT, compute_dtype="bfloat16")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG)


def test_weights_gradients_and_optimizer_state_are_those_of_a_step(model):
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    by_name = {part.name: part for part in parts(SETUP, MACHINE, 0.0)}
    weights = list(model.parameters())
    assert by_name["weights"].training == sum(each.nbytes for each in weights)
    assert by_name["gradients"].step == sum(each.grad.nbytes for each in weights)
    state = [value for each in weights for value in optimizer.state[each].values() if value.ndim]
    assert by_name["optimizer state"].rollouts == sum(each.nbytes for each in state)
    assert by_name["teacher"].rollouts == sum(each.nbytes for each in weights)


def test_the_cache_is_that_of_the_longest_rows(model):
    rows, length = 16, 12 + 8
    cache = DynamicCache(config=CONFIG)
    with torch.no_grad():
        model(input_ids=torch.ones(rows, length, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert SETUP.rows_at_once == rows
    assert generation_cache(SETUP) == pytest.approx(held * (1 + 1 / 3))
    assert generation_cache(replace(SETUP, held_out_rows=64)) == pytest.approx(4 * held * (1 + 1 / 3))
    assert generation_cache(replace(SETUP, engine=EngineSetup("vllm"))) == 0


@pytest.mark.parametrize(("engine_batch", "rows"), [(1, 4), (4, 4), (9, 8), (1000, 32)])
def test_a_group_is_never_split(engine_batch, rows):
    assert replace(SETUP, engine=EngineSetup("transformers", engine_batch)).rows_at_once == rows


def test_activations_are_those_of_the_largest_micro_batch_and_plain_rows_have_no_mask():
    layer = SIZE.layer_activation_bytes("float32", repeated=False)
    saved = SIZE.activation_bytes_per_token("float32", repeated=False)
    assert student_activations(SETUP, LARGEST.student) == 40 * (saved + layer)
    assert activations(SETUP) == student_activations(SETUP, LARGEST.student)
    masked = Rows(1, 40, False, 40)
    repeated = 2 * 4 * (96 - 32)  # keys and values, of query heads and not of key heads alone
    expected = 40 * (saved + layer + 4 * repeated) + 1600 * 4 * 3  # three layers and the one in hand; a mask for each
    assert student_activations(SETUP, masked) == expected
    eager = replace(SETUP, student=replace(STUDENT, attention="eager"))
    heads = 1600 * 4 * 3 * 6
    assert student_activations(eager, masked) == 40 * (saved + layer + 4 * repeated) + heads
    assert student_activations(eager, replace(masked, is_plain=True)) == student_activations(eager, masked)
    flex = replace(SETUP, student=replace(STUDENT, attention="flex_attention"))
    assert student_activations(flex, masked) == 40 * (saved + layer)


def test_a_teacher_that_reads_far_more_than_a_checkpointed_student_needs_more_than_it():
    rows = Rows(4, 1000, False, 4000)
    layer = 4000 * SIZE.layer_activation_bytes("float32") + 4 * 1000**2 * 4
    assert teacher_activations(SETUP, rows) == layer
    long = replace(SETUP, largest=[replace(LARGEST, teacher=rows)])
    assert activations(long) == layer
    assert activations(replace(long, teacher=None)) == activations(SETUP)


def test_sharding_splits_what_lasts_and_gathers_some():
    sharded = replace(SETUP, processes=4, sharded=True)
    whole, split = (
        {part.name: part.training for part in parts(each, GPU, 0.0)} for each in (replace(SETUP, processes=4), sharded)
    )
    for name in ("weights", "gradients", "optimizer state", "teacher"):
        assert split[name] == whole[name] / 4
    assert split["activations"] == whole["activations"]
    assert gathered(SETUP) == 0
    assert gathered(sharded) == 4 * (2 * EMBEDDING + 72 + 2 * LAYER)


def test_adapters_are_trained_and_the_weights_under_them_shared_with_a_teacher_that_is_a_copy():
    adapters = 3 * 4 * (4 * 72 + 96 + 2 * 32 + 96 + 3 * (72 + 176))
    adapted = replace(SETUP, student=ADAPTED)
    assert ADAPTED.trained == adapters
    assert held_weights(adapted) == 4 * (PARAMETERS + adapters)
    assert teacher_weights(adapted) == 4 * adapters
    by_name = {part.name: part.training for part in parts(adapted, MACHINE, 0.0)}
    assert by_name["gradients"] == 4 * adapters
    assert by_name["optimizer state"] == 8 * adapters
    head_gradient = 4 * EMBEDDING
    assert logits(SETUP, MACHINE) - logits(adapted, MACHINE) == head_gradient


def test_teachers():
    larger = replace(SIZE, num_layers=6)
    other = TeacherSetup(larger, "bfloat16", is_copy=False, moves=False, with_student=False, attention="sdpa")
    assert teacher_weights(replace(SETUP, teacher=other)) == 2 * larger.num_parameters
    assert teacher_weights(replace(SETUP, teacher=None)) == 0
    side_by_side = replace(SETUP, teacher=replace(TEACHER, with_student=True))
    assert logits(side_by_side, GPU) - logits(SETUP, GPU) == 2 * 4 * EMBEDDING
    assert "teacher" not in {part.name for part in parts(replace(SETUP, teacher=None), MACHINE, 0.0)}


def test_the_loss_holds_a_heads_gradient_hidden_states_and_a_chunk():
    tokens, chunk = 2 * 8, 16 * 90
    hidden = (2 + 1) * 4 * tokens * 72
    assert logits(SETUP, GPU) == 4 * EMBEDDING + hidden + (2 * 4 + 5 * 4) * chunk
    assert logits(replace(SETUP, chunk_size=8), GPU) == logits(SETUP, GPU) - 28 * chunk / 2


def test_autocast_copies_what_it_multiplies_with():
    mixed = replace(SETUP, student=MIXED)
    assert training_copies(SETUP) == rollout_copies(SETUP) == 0
    assert training_copies(mixed) == 2 * 3 * SIZE.linear_weights_per_layer
    assert rollout_copies(mixed) == 2 * EMBEDDING
    assert rollout_copies(replace(mixed, engine=EngineSetup("vllm"))) == 0
    for student in (MIXED, replace(ADAPTED, compute_dtype="bfloat16")):
        checkpointed = replace(SETUP, student=replace(student, checkpointing=True))
        assert training_copies(checkpointed) == 2 * SIZE.linear_weights_per_layer
    assert not replace(MIXED, dtype="bfloat16").mixed


@pytest.mark.parametrize("checkpointing", [False, True])
def test_autograd_keeps_the_copies_that_are_counted(checkpointing):
    """The layers' matrices in 16 bits, as a forward pass under Lightning's own autocast leaves them behind."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    shapes = {tuple(p.shape) for layer in model.model.layers for p in layer.parameters() if p.dim() == 2}
    kept = {}

    def keep(tensor):
        if tensor.dtype == torch.bfloat16 and ({tuple(tensor.shape), tuple(tensor.shape)[::-1]} & shapes):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        MixedPrecision("bf16-mixed", "cpu").forward_context(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model(torch.arange(10)[None])
    student = replace(MIXED, checkpointing=checkpointing)
    counted = 0 if checkpointing else training_copies(replace(SETUP, student=student))  # one layer's come later
    assert sum(tensor.nbytes for tensor in kept.values()) == counted


def test_the_optimizer_needs_a_number_per_weight_on_a_gpu():
    assert step_temporaries(SETUP, GPU) == 4 * PARAMETERS
    assert step_temporaries(SETUP, MACHINE) == 2 * 4 * EMBEDDING


def test_vllm_takes_its_share_of_a_gpu_and_sleeps_while_the_student_trains():
    engine = EngineSetup("vllm", dtype="bfloat16", memory_share=0.4, devices=2)
    setup = replace(SETUP, engine=engine)
    assert engine_memory(setup, GPU) == 0.4 * GPU.memory
    assert engine_weights(setup) == PARAMETERS  # two bytes over two devices
    kv = 2 * 32 * 3 * 2
    assert engine_cache_tokens(setup, GPU) == pytest.approx((0.4 * GPU.memory - PARAMETERS) * 2 / kv)
    part = {part.name: part for part in parts(setup, GPU, 0.0)}["vLLM"]
    assert (part.rollouts, part.training, part.step) == (0.4 * GPU.memory, 0.0, 0.0)
    awake = {part.name: part for part in parts(replace(setup, engine=replace(engine, sleeps=False)), GPU, 0.0)}
    assert awake["vLLM"].training == awake["vLLM"].step == 0.4 * GPU.memory


def test_vllm_has_a_process_of_its_own_on_a_cpu_with_its_weights_twice():
    engine = EngineSetup("vllm", dtype="float32", cache_gib=1.0)
    setup = replace(SETUP, engine=engine)
    assert engine_memory(setup, MACHINE) == 2 * 4 * PARAMETERS + (1 + 0.75) * GIB
    assert engine_memory(replace(setup, engine=replace(engine, cache_gib=None)), MACHINE) == (
        2 * 4 * PARAMETERS + (2 + 0.75) * GIB
    )
    (part,) = [part for part in parts(setup, MACHINE, 0.0) if part.name == "vLLM"]
    assert part.rollouts == part.training == part.step
    assert engine_cache_tokens(setup, MACHINE) == pytest.approx(GIB / (2 * 32 * 3 * 4))


def test_rounds_steps_and_tokens():
    plan = make_plan(SETUP, MACHINE, 0.0, [])
    assert plan.counts == {
        "prompts": 8,
        "completions": 32,
        "sampled tokens": 192,
        "training samples": 32,
        "tokens the student reads": 512,
        "tokens the teacher reads": 512,
        "padding that both read": 0,
        "tokens in the loss": 192,
        "micro-batches of a process": 16,
        "optimizer steps": 4,
    }
    assert plan.warnings == []
    halves = replace(SETUP, processes=2)
    assert (halves.num_micro_batches, halves.rows_at_once) == (8, 16)
    padded = replace(SETUP, typical=[replace(TYPICAL, student=Rows(2, 20, True, 32))] * 16)
    assert make_plan(padded, MACHINE, 0.0, []).counts["padding that both read"] == 16 * 8
    alone = make_plan(replace(SETUP, teacher=None), MACHINE, 0.0, []).counts
    assert alone["tokens the teacher reads"] == 0


def test_totals_and_warnings_name_the_phase_that_does_not_fit():
    plan = make_plan(SETUP, MACHINE, 1000.0, [])
    assert plan.peak == max(plan.total.rollouts, plan.total.training, plan.total.step)
    assert plan.total.training == sum(part.training for part in plan.parts)
    small = replace(MACHINE, memory=(plan.total.rollouts + plan.total.training) / 2)
    (warning,) = [each for each in make_plan(SETUP, small, 1000.0, []).warnings if "will not fit" in each]
    assert warning.startswith("Training on a micro-batch needs")
    assert "gradient_checkpointing" in warning
    assert make_plan(replace(SETUP, processes=2), replace(MACHINE, memory=1.5 * plan.peak), 1000.0, []).warnings
    tiny = replace(GPU, memory=100_000.0)
    engine = EngineSetup("vllm", dtype="float32", memory_share=0.4)
    assert any("vLLM has room" in each for each in make_plan(replace(SETUP, engine=engine), tiny, 0.0, []).warnings)


def test_times_follow_from_operations_and_bytes():
    found = seconds(SETUP, MACHINE)
    head = 16 * 12 * SIZE.head_flops_per_token
    linear, pair = SIZE.linear_flops_per_token, 1.4 * SIZE.attention_flops_per_pair
    pair *= SIZE.num_layers * SIZE.linear_weights_per_layer / SIZE.body_parameters  # the price list counts norms, too
    student, teacher = (16 * (32 * linear + pairs * pair) for pairs in (2 * 16**2 / 2, 32**2))
    assert found["student's forward and backward passes"] == pytest.approx(3 * (student + head) / (0.4 * 1e11))
    assert found["teacher's forward passes"] == pytest.approx((teacher + head) / (0.4 * 1e11))
    assert found["optimizer steps"] == pytest.approx(4 * PARAMETERS * (6 * 4 + 16) / (0.7 * 1e10))
    assert "exchange between processes" not in found
    checkpointed = replace(SETUP, student=replace(STUDENT, checkpointing=True))
    more = seconds(checkpointed, MACHINE)["student's forward and backward passes"]
    assert more - found["student's forward and backward passes"] == pytest.approx(student / (0.4 * 1e11))


def test_twice_the_rate_halves_the_time_of_products():
    fast = replace(MACHINE, flops_32=2e11)
    name = "student's forward and backward passes"
    assert seconds(SETUP, MACHINE)[name] == 2 * seconds(SETUP, fast)[name]
    assert seconds(SETUP, MACHINE)["rollouts"] > seconds(replace(SETUP, num_prompts=4), MACHINE)["rollouts"]
    assert "rollouts" not in seconds(replace(SETUP, num_rollouts=0), MACHINE)
    assert "exchange between processes" in seconds(replace(SETUP, processes=2, sharded=True), GPU)


def test_a_process_receives_the_shards_of_the_others_in_every_micro_batch():
    """Counted by walking through a round of four processes, each of which holds a quarter of every tensor."""
    sharded = replace(SETUP, processes=4, sharded=True, typical=[TYPICAL] * 16)
    received = 0
    for _ in range(len(sharded.typical) // 4):  # its micro-batches
        for _ in range(3):  # the student's forward and backward pass, the teacher's forward pass
            received += 3 * (PARAMETERS * 4 / 4)
        received += 3 * (PARAMETERS * 4 / 4)  # gradients of its quarter, from each of the others
    assert moved(sharded) == {BETWEEN: received}
    vllm = replace(sharded, engine=EngineSetup("vllm", dtype="bfloat16"))
    assert moved(vllm)[TO_VLLM] == 3 * (PARAMETERS * 4 / 4) + PARAMETERS * 2
    copies = replace(SETUP, processes=4)
    assert moved(copies) == {BETWEEN: 4 * 2 * 0.75 * PARAMETERS * 4}
    assert moved(SETUP) == {}
    assert moved(replace(sharded, engine=EngineSetup("servers")))[TO_VLLM] == 3 * (PARAMETERS * 4 / 4)


def test_a_network_between_nodes_is_the_slower_link():
    name = "exchange between processes"
    one = replace(SETUP, processes=4, sharded=True)
    found = [seconds(replace(one, nodes=nodes), GPU)[name] for nodes in (1, 2)]
    assert found[1] / found[0] == pytest.approx(450 / 50)
