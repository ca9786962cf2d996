"""``caopd export``: what it writes loads elsewhere and writes the same completions as the checkpoint's model."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import AutoModelForCausalLM, AutoTokenizer

from caopd.cli import main
from caopd.confidence import InlineConfidence
from caopd.models import SMOLLM2, LoRA, ModelSource
from caopd.rounds.encoding import SampleEncoder
from caopd.tasks import DrawTask
from tests.needs import needs_smollm2, needs_vllm

MAX_NEW_TOKENS = 8
VLLM = """
import json, sys
from vllm import LLM, SamplingParams
directory, prompts = json.load(sys.stdin)
llm = LLM(directory, dtype="float32", enforce_eager=True, kv_cache_memory_bytes=2**28, max_num_seqs=32)
greedy = SamplingParams(temperature=0, max_tokens=8)
outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy, use_tqdm=False)
json.dump([list(output.outputs[0].token_ids) for output in outputs], open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def run(fit, tmp_path_factory):
    """Large steps, so that student, teacher and base write different completions."""
    return fit(tmp_path_factory.mktemp("run"), **{"model.optimizer.init_args.lr": 3e-3, "model.teacher.rate": 0.2})


@pytest.fixture(scope="module")
def lora_run(fit, tmp_path_factory):
    settings = {"model.source.lora.rank": 4, "model.optimizer.init_args.lr": 1e-2, "trainer.max_epochs": 1}
    return fit(tmp_path_factory.mktemp("lora"), **settings)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, MAX_NEW_TOKENS)
    return encoder.student_prompts(DrawTask(num_validation=24).examples("validation"))


def exported(run, directory, *options, name="round1"):
    assert main(["export", str(run.checkpoint_file(name)), str(directory), *options]) == 0
    return directory


def in_checkpoint(run, tokenizer, which="student", source=ModelSource(), name="round1"):
    """The checkpoint's own model, adapters and all."""
    model = source.load_model(tokenizer)
    state = run.checkpoint(name)["state_dict"]
    model.load_state_dict({k.removeprefix(f"{which}."): v for k, v in state.items() if k.startswith(f"{which}.")})
    return model.hf


@torch.no_grad()
def by_hand(hf, prompts, stops=(2,), max_new_tokens=MAX_NEW_TOKENS):
    """Argmax after argmax, without cache, padding or ``generate``."""
    completions = []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + max_new_tokens and (len(ids) == len(prompt) or ids[-1] not in stops):
            ids.append(hf(torch.tensor([ids])).logits[0, -1].argmax().item())
        completions.append(ids[len(prompt) :])
    return completions


def with_transformers(directory, prompts):
    """As a user would: with the exported generation config and nothing else."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    return [model.generate(torch.tensor([prompt]))[0, len(prompt) :].tolist() for prompt in prompts]


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_transformers_completes_as_the_checkpoints_model_does(run, prompts, tokenizer, tmp_path, which):
    directory = exported(run, tmp_path / "model", f"--weights={which}")
    expected = by_hand(in_checkpoint(run, tokenizer, which), prompts)
    assert with_transformers(directory, prompts) == expected
    other = {"student": "teacher", "teacher": "student"}[which]
    assert by_hand(in_checkpoint(run, tokenizer, other), prompts) != expected


def test_adapters_are_merged(lora_run, prompts, tokenizer, policy, tmp_path):
    directory = exported(lora_run, tmp_path / "model", name="round0")
    expected = by_hand(
        in_checkpoint(lora_run, tokenizer, source=ModelSource(lora=LoRA(rank=4)), name="round0"), prompts
    )
    assert with_transformers(directory, prompts) == expected
    assert by_hand(policy.hf, prompts) != expected
    assert not list(directory.glob("adapter*"))


@pytest.mark.slow
@needs_vllm
def test_vllm_completes_as_the_checkpoints_model_does(run, prompts, tokenizer, tmp_path):
    directory = exported(run, tmp_path / "model")
    answer = tmp_path / "completions.json"
    child = subprocess.run(
        [sys.executable, "-c", VLLM, answer],
        input=json.dumps([str(directory), prompts]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    assert json.loads(answer.read_text()) == by_hand(in_checkpoint(run, tokenizer), prompts)


@pytest.mark.slow
@pytest.mark.slow
@needs_smollm2
def test_a_gguf_model_becomes_a_plain_one(tmp_path):
    source = ModelSource(SMOLLM2)
    tokenizer = source.load_tokenizer()
    model = source.load_model(tokenizer)
    (tmp_path / "checkpoints").mkdir()
    state = {f"student.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 0}, tmp_path / "checkpoints" / "first.ckpt")
    (tmp_path / "config.yaml").write_text(f"model: {{source: {{name_or_path: {SMOLLM2}}}}}\n")
    directory = tmp_path / "model"
    assert main(["export", str(tmp_path / "checkpoints" / "first.ckpt"), str(directory)]) == 0
    config = json.loads((directory / "config.json").read_text())
    assert "quantization_config" not in config
    assert "embedded" not in (directory / "README.md").read_text()
    text = "The capital of France is"
    ids = tokenizer(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(directory)(text)["input_ids"] == ids
    plain = AutoModelForCausalLM.from_pretrained(directory)
    assert plain.generation_config.eos_token_id == list(model.stop_token_ids)
    expected = by_hand(model.hf, [ids], model.stop_token_ids, 6)
    assert plain.generate(torch.tensor([ids]), max_new_tokens=6)[0, len(ids) :].tolist() == expected[0]


def test_tokenizer_and_generation_config_are_those_of_the_run(run, prompts, tokenizer, tmp_path):
    directory = exported(run, tmp_path / "model")
    exported_tokenizer = AutoTokenizer.from_pretrained(directory)
    messages = [{"role": "user", "content": "Which odd digit was drawn from 31?\n\n" + InlineConfidence().instruction}]
    rendered = [
        each.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        for each in (exported_tokenizer, tokenizer)
    ]
    assert rendered[0] == rendered[1]
    found = json.loads((directory / "generation_config.json").read_text())
    assert (found["do_sample"], found["max_new_tokens"], found["eos_token_id"]) == (False, MAX_NEW_TOKENS, [2])


def test_names_of_any_characters_are_text_in_the_card(run, tmp_path):
    directory = exported(run, tmp_path / '_my_ "model" $x$ #')
    text = ModelCard.load(directory / "README.md").text
    heading = MarkdownIt("commonmark").render(text.split("\n\n## ")[0])
    assert "<h1>_my_ &quot;model&quot; $x$ #</h1>" in heading
    code = text.split("```python\n")[1].split("```")[0]
    assert f"from_pretrained({directory.name!r})" in code


def test_the_originals_generation_defaults_are_not_carried_over(run, tokenizer, tmp_path):
    """They were made for other weights and another way of asking."""
    source = shutil.copytree(ModelSource().location, tmp_path / "source")
    defaults = {
        "do_sample": True,
        "temperature": 0.3,
        "repetition_penalty": 1.2,
        "min_new_tokens": 3,
        "eos_token_id": [9],
    }
    (source / "generation_config.json").write_text(json.dumps(defaults))
    config = yaml.safe_load((run.directory / "config.yaml").read_text())
    config["model"]["source"]["name_or_path"] = str(source)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    directory = exported(run, tmp_path / "model", f"--config={tmp_path / 'config.yaml'}")
    found = json.loads((directory / "generation_config.json").read_text())
    del found["transformers_version"]
    pad = tokenizer.pad_token_id
    assert found == {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS, "eos_token_id": [9, 2], "pad_token_id": pad}


def test_the_card_carries_what_the_run_measured(run, tmp_path):
    card = ModelCard.load(exported(run, tmp_path / "model") / "README.md")
    metrics = json.loads((run.directory / "metrics.json").read_text())
    recorded = {(each.metric_type, each.metric_name.rpartition(", ")[2]): each for each in card.data.eval_results}
    for name in ("accuracy", "ece", "brier", "ocg", "spr", "auroc", "mean_confidence", "format_adherence"):
        for event in ("greedy", "sampled"):
            assert recorded[name, event].metric_value == metrics["final"][event][name]
    rows = [line.split(" | ") for line in card.text.splitlines() if line.startswith("| ")]
    brier = next(row for row in rows if row[0] == "| Brier score")
    moments = [("greedy", "initial"), ("greedy", "final"), ("sampled", "initial"), ("sampled", "final")]
    values = [f"{metrics[moment][event]['brier']:.3f}" for event, moment in moments]
    assert brier[1:] == [*values[:-1], f"{values[-1]} |"]
    for title, name in (
        ("expected calibration error", "ece"),
        ("ECE that a calibrated model would show", "noise_floor"),
    ):
        row = next(row for row in rows if row[0].startswith(f"| {title}"))
        for cell, (event, moment) in zip(row[1:], moments, strict=True):
            values = metrics[moment][event]
            between = f"[{values[f'{name}_low']:.3f}, {values[f'{name}_high']:.3f}]"
            assert cell.removesuffix(" |") == f"{values[name]:.3f} {between}"
    assert "| greedy, before training, step 0 | greedy, after training, step 8 | sampled, before" in card.text
    assert "sampled as in training (temperature 1.0)" in card.text
    assert "CaOPD on SDFT on DrawTask, 8 optimizer steps" in card.text
    assert repr(InlineConfidence().instruction) in card.text
    assert "Not of these weights" not in card.text


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("round0", [], "**Not of these weights**, which are those of step 4"),
        ("round1", ["--weights=teacher"], "**Of the student, not of these weights**"),
    ],
)
def test_the_card_says_where_other_weights_were_measured(run, tmp_path, name, options, sentence):
    card = ModelCard.load(exported(run, tmp_path / "model", *options, name=name) / "README.md")
    assert sentence in card.text
    assert not card.data.eval_results


def test_the_example_of_the_card_runs(run, tmp_path):
    text = (exported(run, tmp_path / "model") / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    question = 'question = "Which odd digit was drawn from 32468?"\n'
    shown = subprocess.run(
        [sys.executable, "-c", question + code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert InlineConfidence().parse(shown.stdout).value is not None


@pytest.fixture
def apart(run, tmp_path):
    """The checkpoint where no run is around it."""
    return shutil.copy(run.checkpoint_file("round1"), tmp_path / "alone.ckpt")


def test_a_checkpoint_without_its_run_takes_a_config_and_has_no_measurement(run, apart, tmp_path):
    config = run.directory / "config.yaml"
    assert main(["export", str(apart), str(tmp_path / "model"), f"--config={config}"]) == 0
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert "None: the checkpoint's run has no `metrics.json`" in card.text
    assert not card.data.eval_results


def test_an_existing_directory_is_overwritten_only_on_request(run, tmp_path, capsys):
    directory = tmp_path / "model"
    directory.mkdir()
    exported(run, directory)
    arguments = ["export", str(run.checkpoint_file("round1")), str(directory)]
    assert main(arguments) == 2
    assert "new or an empty directory" in capsys.readouterr().err
    (directory / "config.json").unlink()
    assert main([*arguments, "--overwrite"]) == 0
    assert (directory / "config.json").exists()


@pytest.fixture
def failure(tmp_path, capsys):
    def fail(checkpoint, *options):
        assert main(["export", str(checkpoint), str(tmp_path / "model"), *options]) == 2
        output = capsys.readouterr()
        assert "Traceback" not in output.err + output.out
        assert not (tmp_path / "model").exists()
        return output.err

    return fail


def test_a_directory_whose_name_is_not_utf8_is_an_error(run, tmp_path, capsys):
    assert main(["export", str(run.checkpoint_file("round1")), str(tmp_path / "caf\udce9")]) == 2
    assert r"caf\udce9" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_an_error(failure, run, apart, tmp_path):
    checkpoint = run.checkpoint("round1")
    checkpoint["state_dict"]["teacher.hf.model.norm.weight"][0] = torch.nan
    torch.save(checkpoint, apart)
    config = f"--config={run.directory / 'config.yaml'}"
    message = failure(apart, config, "--weights=teacher")
    assert f"Expected the weights of the teacher in {apart} to be finite, but 1 of" in message
    assert "hf.model.norm.weight" in message
    assert main(["export", str(apart), str(tmp_path / "student"), config]) == 0  # the student's are


def test_a_checkpoint_without_a_config_is_an_error(failure, apart):
    assert "name it with `--config`" in failure(apart)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"method": "SFT"}}, "`model.source`"),
        ({"model": {"source": {"name": "embedded"}}}, "as in `caopd fit`"),
        ({"model": {"source": {"name_or_path": "no/such/directory"}}}, "could not load it"),
        ({"model": {"source": {"lora": {"rank": 4}}}}, "it is of another model"),
    ],
)
def test_a_config_of_another_model_is_an_error(failure, apart, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = tmp_path / "other.yaml"
    config.write_text(yaml.safe_dump(change))
    assert message in failure(apart, f"--config={config}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read or written"),
        (b"text", "it cannot be read"),
        ({"state_dict": {}}, "no `state_dict` and `global_step`"),
        ({"state_dict": {"student.hf.x": torch.zeros(1)}, "global_step": 1}, "holds only student"),
    ],
)
def test_files_that_are_no_checkpoints_are_errors(failure, run, tmp_path, content, message):
    path = tmp_path / "bad.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert message in failure(path, f"--config={run.directory / 'config.yaml'}", "--weights=teacher")


def test_a_directory_that_is_no_sharded_checkpoint_is_an_error(failure, run, tmp_path):
    (tmp_path / "sharded").mkdir()
    message = failure(tmp_path / "sharded", f"--config={run.directory / 'config.yaml'}")
    assert "without .metadata and meta.pt" in message
