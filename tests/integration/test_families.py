"""Models as users have them: directories of four families, untrained, whose chat templates behave as theirs do."""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from caopd.cli import main
from caopd.models.tiny import build_tokenizer

SIZES = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 32},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024},
}
WINDOW = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TEMPLATES = {
    # Thinking is on unless it is switched off, which writes an empty thought.
    "qwen3": TURNS
    + "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}",
    # A system message of its own, with a date, before everything.
    "llama": "<|system|>Knowledge until 2023. Date: {{ date_string or '26 Jul 2024' }}"
    "{% if messages[0].role == 'system' %} {{ messages[0].content }}{% endif %}<|end|>"
    "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + ANSWER,
    # A default system message where there is none.
    "olmo3": "{% if messages[0].role != 'system' %}<|system|>You are helpful.<|end|>{% endif %}" + TURNS + ANSWER,
    # No system role: what it says opens the first turn; roles must alternate.
    "gemma3": "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<|{{ 'assistant' if m.role == 'assistant' else 'user' }}|>{{ first if loop.first else '' }}{{ m.content }}<|end|>"
    "{% endfor %}" + ANSWER,
}
FAMILIES = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True}),
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "olmo3": (Olmo3ForCausalLM, Olmo3Config, WINDOW),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, WINDOW),
}
OTHER_END = "<|stop|>"
"""A second end of a completion, beside the tokenizer's own."""


@pytest.fixture(
    params=[
        "qwen3",
        "gemma3",
        pytest.param("llama", marks=pytest.mark.slow),
        pytest.param("olmo3", marks=pytest.mark.slow),
    ]
)
def family(request, tmp_path):
    """A directory of the family, with two end tokens, and more rows than tokens."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([OTHER_END], special_tokens=True)
    tokenizer.chat_template = TEMPLATES[request.param]
    model_class, config_class, options = FAMILIES[request.param]
    torch.manual_seed(0)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(OTHER_END)]
    special = {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = model_class(config_class(**SIZES, **options, **special, vocab_size=len(tokenizer) + 5))
    model.generation_config = GenerationConfig(**special)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)  # all tokens are about as likely, so that both ends are sampled
    directory = tmp_path / request.param
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def small(directory, engine="TransformersEngine"):
    return [
        *("--config=configs/quickstart.yaml", f"--model.source.name_or_path={directory}", "--trainer.max_epochs=2"),
        *("--data.task.num_train=64", "--data.task.num_validation=16", "--data.task.num_test=16"),
        *("--data.round.num_prompts_per_round=8", "--data.round.num_rollouts=4", "--data.batch_size=4"),
        *("--data.task.kinds=[even]", "--data.sampling.max_new_tokens=40", "--data.evaluation.batch_size=16"),
        f"--data.engine=caopd.rollouts.{engine}",
    ]


def trained(directory, root, *options):
    assert main(["fit", *small(directory), f"--trainer.default_root_dir={root}", *options]) == 0
    (checkpoint,) = root.rglob("*.ckpt")
    return checkpoint


def test_a_directory_of_every_family_is_trained_and_exported(family, tmp_path, capsys):
    checkpoint = trained(family, tmp_path / "run")
    model = tmp_path / "model"
    assert main(["export", str(checkpoint), str(model)]) == 0
    assert "Traceback" not in capsys.readouterr().err
    exported, weights = AutoModelForCausalLM.from_pretrained(model), torch.load(checkpoint, weights_only=False)
    before = AutoModelForCausalLM.from_pretrained(family)
    assert type(exported) is type(before)
    student = {name.removeprefix("student.hf."): value for name, value in weights["state_dict"].items()}
    for name, value in exported.named_parameters():
        torch.testing.assert_close(value, student[name])
    assert any(not torch.equal(new, old) for new, old in zip(exported.parameters(), before.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(model).chat_template == TEMPLATES[family.name]
    assert exported.generation_config.eos_token_id == AutoConfig.from_pretrained(family).eos_token_id
    lines = next((tmp_path / "run").rglob("round_00001.jsonl")).read_text().splitlines()[1:]
    rollouts = [row["rollout"] for line in lines for row in json.loads(line)["rollouts"]]
    assert len(rollouts) == 32
    ended = [rollout["token_ids"] for rollout in rollouts if rollout["stop_reason"] == "eos"]
    ends = exported.generation_config.eos_token_id
    assert {ids[-1] for ids in ended} == set(ends)
    assert not any(end in ids[:-1] for ids in ended for end in ends)


NO_THOUGHT = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
@pytest.mark.parametrize("thinks", [True, False])
def test_thinking_is_switched_by_the_arguments_of_the_template(family, thinks, tmp_path):
    trained(family, tmp_path / "run", f"--data.template_arguments={{enable_thinking: {str(thinks).lower()}}}")
    tokenizer = AutoTokenizer.from_pretrained(family)
    lines = next((tmp_path / "run").rglob("round_00001.jsonl")).read_text().splitlines()[1:]
    prompts = {tokenizer.decode(json.loads(line)["prompt_ids"]) for line in lines}
    assert {prompt.endswith("<|assistant|>" if thinks else f"<|assistant|>{NO_THOUGHT}") for prompt in prompts} == {
        True
    }


@pytest.mark.parametrize("family", ["gemma3"], indirect=True)
def test_a_template_without_a_system_role_refuses_a_system_message_in_one_line(family, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(family)
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer.chat_template = refusal + TEMPLATES["gemma3"]
    tokenizer.save_pretrained(family)
    rows = [{"question": f"Which is {n}?", "answer": str(n), "system": "Be brief."} for n in range(64)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows.yaml").write_text(
        f"""
data:
  task:
    class_path: caopd.tasks.QuestionAnswering
    init_args:
      source: {{path: {tmp_path}/rows.jsonl, splits: {{validation: train}}, shares: {{train: 0.8, validation: 0.2}}}}
      verifier: {{class_path: caopd.verifiers.Numeric}}
"""
    )
    options = [option for option in small(family) if "data.task" not in option]
    assert main(["fit", *options, f"--config={tmp_path}/rows.yaml", f"--trainer.default_root_dir={tmp_path}/run"]) == 2
    said = capsys.readouterr().err
    assert "System role not supported" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_vllm_samples_from_a_directory_of_every_family(family, tmp_path):
    """The guard compares what vLLM has sampled with the model, so a run that ends has sampled from these weights."""
    trained(family, tmp_path / "run", "--data.engine=caopd.rollouts.VLLMEngine")
