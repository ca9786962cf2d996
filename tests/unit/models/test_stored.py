"""A model's files give weights, architecture and special tokens; nothing else changes what is sampled or trained."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from caopd.errors import ModelError, RolloutError
from caopd.models import External, LanguageModel, Loader, ModelSource
from caopd.models.packing import pack
from caopd.models.stored import settle_config
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.rounds.encoding import encode_prompts
from caopd.rounds.parity import ParityConfig, check_parity

EMBEDDED = Path(ModelSource().location)
PROMPTS = [(4, 120, 125), (4, 130, 15, 57, 126, 3, 9)]
WILD = Sampling(temperature=1.5, max_new_tokens=6)
GREEDY = Sampling(temperature=0, max_new_tokens=6)
DEFAULTS = {
    "assistant_confidence_threshold": 0.9,
    "assistant_early_exit": 1,
    "assistant_ensemble_weight": 0.5,
    "assistant_lookbehind": 3,
    "bad_words_ids": [[token] for token in range(100, 140)],
    "begin_suppress_tokens": list(range(100, 200)),
    "cache_config": {"backend": "quanto"},
    "cache_implementation": "static",
    "diversity_penalty": 0.5,
    "do_sample": True,
    "early_stopping": True,
    "encoder_no_repeat_ngram_size": 1,
    "encoder_repetition_penalty": 3.0,
    "epsilon_cutoff": 0.2,
    "eta_cutoff": 0.2,
    "exponential_decay_length_penalty": [0, 5.0],
    "forced_bos_token_id": 57,
    "forced_eos_token_id": 57,
    "guidance_scale": 4.0,
    "is_assistant": True,
    "length_penalty": 3.0,
    "max_cache_len": 4,
    "max_length": 9,
    "max_matching_ngram_size": 1,
    "max_new_tokens": 2,
    "max_time": 1e-9,
    "min_length": 30,
    "min_new_tokens": 5,
    "min_p": 0.9,
    "no_repeat_ngram_size": 1,
    "num_assistant_tokens": 3,
    "num_assistant_tokens_schedule": "heuristic",
    "num_beams": 3,
    "num_return_sequences": 2,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_logits": True,
    "output_scores": True,
    "prefill_chunk_size": 2,
    "prompt_lookup_num_tokens": 2,
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "repetition_penalty": 1.8,
    "return_dict_in_generate": True,
    "sequence_bias": [[[57], 9.0]],
    "speculation_type": "dflash",
    "stop_strings": ["0"],
    "suppress_tokens": list(range(100, 200)),
    "target_lookbehind": 3,
    "temperature": 0.1,
    "token_healing": True,
    "top_h": 0.1,
    "top_k": 1,
    "top_p": 0.1,
    "typical_p": 0.1,
    "use_cache": False,
    "use_mtp": True,
    "watermarking_config": {"bias": 9.0},
}
"""Entries of ``generation_config.json`` with values that do something."""
NOT_TRIED = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"}
NOT_TRIED |= {"compile_config"}  # transformers refuses it in a file
FIELDS = sorted({name for name in vars(GenerationConfig()) if name[0] != "_"} - NOT_TRIED | DEFAULTS.keys())


@pytest.fixture
def directory(tmp_path):
    """A copy of the embedded model's directory."""
    return Path(shutil.copytree(EMBEDDED, tmp_path / "model"))


def write(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def sampled(model, tokenizer, sampling=WILD):
    engine = TransformersEngine()
    engine.start(tokenizer)
    engine.sync(model, 0)
    return engine.generate([RolloutRequest(prompt, n) for n, prompt in enumerate(PROMPTS)], 3, sampling)


@pytest.fixture(scope="module")
def plain(policy, tokenizer):
    return sampled(policy, tokenizer), sampled(policy, tokenizer, GREEDY)


def from_directory(directory, tokenizer):
    model = ModelSource(str(directory)).load_model(tokenizer)
    return sampled(model, tokenizer), sampled(model, tokenizer, GREEDY)


@pytest.mark.parametrize("name", FIELDS)
def test_generation_defaults_are_not_used(directory, tokenizer, plain, name):
    """A field that a newer transformers brings is tried with 1."""
    write(directory / "generation_config.json", **{"do_sample": True, name: DEFAULTS.get(name, 1)})
    assert from_directory(directory, tokenizer) == plain


CUT = Sampling(temperature=1.5, max_new_tokens=2)
STOPS = {
    *("bad_words_ids", "begin_suppress_tokens", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty"),
    *("exponential_decay_length_penalty", "forced_eos_token_id", "guidance_scale", "max_time", "min_length"),
    *("min_new_tokens", "no_repeat_ngram_size", "repetition_penalty", "sequence_bias", "suppress_tokens"),
}
"""Defaults that change what is drawn, where they get through."""


@pytest.mark.parametrize("name", FIELDS)
def test_generation_defaults_that_get_through_change_nothing_or_stop_the_run(directory, policy, tokenizer, name):
    """Were they not undone: what is left is drawn alike, is refused by transformers, or is caught."""
    write(directory / "generation_config.json", **{"do_sample": True, name: DEFAULTS.get(name, 1)})
    model = ModelSource(str(directory)).load_model(tokenizer)
    model.hf.generation_config = GenerationConfig.from_pretrained(directory)
    caught, refused = [], []
    for sampling in (WILD, CUT, GREEDY):
        try:
            groups = sampled(model, tokenizer, sampling)
            check_parity(model, PROMPTS, groups, sampling, ParityConfig(6), rounding=0.002)
        except RolloutError as error:
            caught.append(str(error))
        except (ValueError, TypeError, RuntimeError) as error:
            refused.append(str(error))
        else:
            assert groups == sampled(policy, tokenizer, sampling)
    assert all("not on-policy" in message or "as they were drawn" in message for message in caught)
    assert (caught and not refused) or name not in STOPS


def test_several_generation_defaults_are_not_used_by_a_teacher_either(directory, policy, tokenizer, plain):
    write(directory / "generation_config.json", repetition_penalty=1.3, top_k=3, do_sample=True, suppress_tokens=[120])
    teacher = External(ModelSource(str(directory))).make(policy, Loader(tokenizer))
    assert (sampled(teacher, tokenizer), sampled(teacher, tokenizer, GREEDY)) == plain


@pytest.mark.parametrize("entry", [{"repetition_penalty": 2.0}, {"min_length": 30}, {"no_repeat_ngram_size": 1}])
def test_generation_defaults_of_old_files_are_not_used(directory, tokenizer, plain, entry):
    """They stand in config.json, where no generation_config.json is."""
    (directory / "generation_config.json").unlink()
    write(directory / "config.json", **entry)
    assert from_directory(directory, tokenizer) == plain


@pytest.mark.parametrize(
    "entry",
    [
        {"use_cache": False},
        {"return_dict": False},
        {"output_hidden_states": True},
        {"output_attentions": True},
        {"dtype": "bfloat16"},
        {"torch_dtype": "float16"},
        {"is_decoder": False},
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"experts_implementation": "deepgemm"},
        {"task_specific_params": {"text-generation": {"do_sample": True, "max_length": 8}}},
    ],
    ids=lambda entry: next(iter(entry)),
)
def test_entries_of_the_config_beside_the_architecture_change_nothing(directory, tokenizer, plain, entry):
    write(directory / "config.json", **entry)
    assert from_directory(directory, tokenizer) == plain


def test_a_loop_of_the_repositorys_own_is_not_used(directory, tokenizer, plain):
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text(
        "def generate(model, input_ids, **settings):\n    return input_ids.new_full((len(input_ids), 64), 57)\n"
    )
    model = ModelSource(str(directory), trust_remote_code=True).load_model(tokenizer)
    assert model.hf.generate(input_ids=torch.tensor([PROMPTS[0]])).unique().tolist() == [57], "the loop is there"
    assert (sampled(model, tokenizer), sampled(model, tokenizer, GREEDY)) == plain


def hidden(model, training):
    return model.train(training).hidden_and_head(pack([PROMPTS[1][:1]], [PROMPTS[1][1:]], 0))[0]


def test_dropout_of_the_config_is_off(directory, tokenizer):
    write(directory / "config.json", attention_dropout=0.4)
    model = ModelSource(str(directory)).load_model(tokenizer)
    assert torch.equal(hidden(model, training=True), hidden(model, training=False))


def small_gpt2(**entries):
    torch.manual_seed(0)
    size = {"vocab_size": 217, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=None, eos_token_id=2, pad_token_id=0, **entries)).eval()


def test_dropout_that_is_a_default_of_the_architecture_is_off(tmp_path, tokenizer):
    hf = small_gpt2()
    assert hf.config.resid_pdrop > 0
    hf.save_pretrained(tmp_path)
    model = ModelSource(str(tmp_path)).load_model(tokenizer)
    assert torch.equal(hidden(model, training=True), hidden(model, training=False))


def test_dropout_of_a_part_of_the_config_is_off(policy):
    config = GPT2Config(embd_pdrop=0.2, use_cache=True)
    config.router_jitter_noise = 0.01
    settle_config(config, "model")
    assert (config.embd_pdrop, config.attn_pdrop, config.router_jitter_noise) == (0.0, 0.0, 0.0)
    assert (config.use_cache, config.layer_norm_epsilon) == (True, 1e-5)


def test_noise_that_goes_by_no_known_name_is_refused():
    model = LanguageModel(small_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), (2,), 0)
    model.check_modes()
    model.hf.transformer.h[0].mlp.dropout.p = 0.1
    with pytest.raises(ModelError, match="GPT2LMHeadModel to compute the same in training"):
        model.check_modes()
    assert not model.training


@pytest.mark.parametrize("method", ["gptq", "fp8", "mxfp4"])
def test_quantised_weights_are_refused(directory, tokenizer, method):
    write(directory / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ModelError, match=r"full precision.*`quantization_config`"):
        ModelSource(str(directory)).load_model(tokenizer)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"tie_word_embeddings": False}, r"1 are missing.*lm_head\.weight"),
        ({"num_hidden_layers": 5}, r"18 are missing.*model\.layers\.3\."),
        ({"mlp_bias": True}, r"9 are missing.*mlp\.down_proj\.bias"),
    ],
    ids=["head", "layers", "biases"],
)
def test_weights_that_would_be_random_are_refused(directory, tokenizer, entry, named):
    write(directory / "config.json", **entry)
    with pytest.raises(ModelError, match=named):
        ModelSource(str(directory)).load_model(tokenizer)


@pytest.mark.parametrize("entry", [{"vocab_size": 300}, {"hidden_act": "no_such_one"}])
def test_what_transformers_refuses_is_said(directory, tokenizer, entry):
    write(directory / "config.json", **entry)
    with pytest.raises(ModelError, match="transformers could not load it"):
        ModelSource(str(directory)).load_model(tokenizer)


def test_damaged_weights_are_said(directory, tokenizer):
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="transformers could not load it"):
        ModelSource(str(directory)).load_model(tokenizer)


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("CODE_HAS_RUN",))


def test_weights_that_would_run_code_are_refused_unread(directory, tokenizer, monkeypatch):
    monkeypatch.chdir(directory)
    (directory / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Payload()}, directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="names code, which loading it would run"):
        ModelSource(str(directory)).load_model(tokenizer)
    assert not Path("CODE_HAS_RUN").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_beside_the_weights_is_not_run(directory, file, monkeypatch):
    monkeypatch.chdir(directory)
    (directory / "beside.py").write_text("import os\n\nos.mkdir('CODE_HAS_RUN')\nclass Any: ...\n")
    auto = {"AutoConfig": "beside.Any", "AutoModelForCausalLM": "beside.Any", "AutoTokenizer": ["beside.Any", None]}
    write(directory / file, model_type="own", tokenizer_class="Own", auto_map=auto)
    source = ModelSource(str(directory))
    with pytest.raises(ModelError, match="contains custom code"):
        source.load_model(source.load_tokenizer())
    assert not Path("CODE_HAS_RUN").exists()


def test_files_of_any_form_are_no_traceback(directory, tokenizer):
    (directory / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../../weights.bin"}}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="transformers could not load it"):
        ModelSource(str(directory)).load_model(tokenizer)


def test_an_adapter_among_the_files_is_refused(directory, tokenizer, policy):
    """It would freeze the model, and be all that an export holds."""
    from peft import LoraConfig, get_peft_model

    hf = ModelSource(str(directory)).load_model(tokenizer).hf
    get_peft_model(hf, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(directory)
    with pytest.raises(ModelError, match=r"are frozen.*adapter_config\.json.*merge"):
        ModelSource(str(directory)).load_model(tokenizer)


def prompts(directory):
    chat = [[{"role": "user", "content": "Which odd digit was drawn from 31?"}]]
    return encode_prompts(ModelSource(str(directory)).load_tokenizer(), chat, {})


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("tokenizer_config.json", {"split_special_tokens": True}),
        ("tokenizer_config.json", {"truncation": True, "max_length": 2, "model_max_length": 2}),
        ("tokenizer_config.json", {"padding_side": "left", "padding": "max_length", "truncation_side": "left"}),
        ("tokenizer_config.json", {"add_bos_token": True, "bos_token": "<|user|>", "add_eos_token": True}),
        (
            "tokenizer.json",
            {"truncation": {"direction": "Left", "max_length": 2, "strategy": "LongestFirst", "stride": 0}},
        ),
        (
            "tokenizer.json",
            {
                "padding": {
                    **{"strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None},
                    **{"pad_id": 0, "pad_type_id": 0, "pad_token": "<|pad|>"},
                }
            },
        ),
    ],
    ids=["split", "truncation", "padding", "added", "stored truncation", "stored padding"],
)
def test_a_prompt_is_whole_whatever_the_tokenizers_files_say(directory, file, entry):
    write(directory / file, **entry)
    assert prompts(directory) == prompts(EMBEDDED)


def test_a_decoded_completion_is_not_cleaned_up(directory, tokenizer):
    write(directory / "tokenizer_config.json", clean_up_tokenization_spaces=True)
    other = ModelSource(str(directory)).load_tokenizer()
    ids = tokenizer("a , b . It 's", add_special_tokens=False)["input_ids"]
    assert other.batch_decode([ids], skip_special_tokens=True, clean_up_tokenization_spaces=False) == ["a , b . It 's"]


def test_chat_templates_without_a_default_are_refused(directory):
    (directory / "chat_template.jinja").unlink()
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "rag.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(ModelError, match=r"named `default`, but they are rag.*chat_template\.jinja"):
        ModelSource(str(directory)).load_tokenizer()


def test_a_default_among_several_chat_templates_is_used(directory):
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages[0]['content'] }}")
    assert prompts(directory) == prompts(EMBEDDED)


def test_a_cache_that_forgets_what_the_model_attends_to_stops_the_run(directory, tokenizer):
    """transformers makes a sliding cache of the entry, for an architecture that knows no window."""
    write(directory / "config.json", sliding_window=3)
    model = ModelSource(str(directory)).load_model(tokenizer)
    groups = sampled(model, tokenizer)
    engine = TransformersEngine()
    engine.sync(model, 0)
    with pytest.raises(RolloutError, match=r"not on-policy.*key-value cache"):
        check_parity(model, PROMPTS, groups, WILD, ParityConfig(6), engine.rounding)
