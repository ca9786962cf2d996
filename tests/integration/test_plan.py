"""``caopd plan`` as users run it: on every shipped config, large models known by their config.json alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import LlamaConfig, Qwen3Config

import caopd.models
from caopd.cli import main
from caopd.confidence import InlineConfidence
from caopd.methods import SDFT
from caopd.models import ModelSource
from caopd.models.tiny import build_tokenizer
from caopd.rounds.encoding import SampleEncoder
from caopd.tasks import DrawTask
from caopd.types import TeacherContext
from tests.integration.conftest import QUICKSTART, Run
from tests.needs import needs_smollm2

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
QWEN3_8B = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
QWEN3_32B = {"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64}
LENGTHS = ["--prompt_tokens=200", "--teacher_prompt_tokens=900"]


def write_config(directory, widths):
    shared = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False}
    Qwen3Config(**widths, **shared).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen3")
    return {"8B": write_config(directory / "8b", QWEN3_8B), "32B": write_config(directory / "32b", QWEN3_32B)}


def plan(capsys, config, *options):
    assert main(["plan", "--config", str(config), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def memory(made):
    return {part["name"]: part for part in made["memory_bytes"]}


ON_A_GPU = [config for config in CONFIGS if "Qwen/Qwen3-8B" in config.read_text()]


@pytest.mark.parametrize("config", ON_A_GPU, ids=lambda path: path.stem)
def test_every_config_of_a_large_model_is_planned(config, qwen3, capsys):
    options = [f"--model.source.name_or_path={qwen3['8B']}", *LENGTHS]
    if "Qwen3-32B" in config.read_text():
        options += [f"--model.teacher.init_args.source.name_or_path={qwen3['32B']}"]
    made = plan(capsys, config, *options)
    parameters = 8_190_735_360  # as Qwen/Qwen3-8B says: 8.2B
    assert made["device"]["name"] == "h100-80g"
    assert memory(made)["weights"]["training"] == pytest.approx(4 * parameters / 8)
    assert memory(made)["optimizer state"]["training"] == pytest.approx(8 * parameters / 8)
    assert made["round"]["optimizer steps"] >= 1
    assert made["seconds"]["total"] > 0
    teacher = {"External": 2 * 32.76e9 / 8, None: 0}.get("External" if "Qwen3-32B" in config.read_text() else "")
    if teacher is not None:
        assert memory(made)["teacher"]["training"] == pytest.approx(teacher, rel=0.001)


ON_A_CPU = [each for each in CONFIGS if "accelerator: cpu" in each.read_text()]
OF_SMOLLM2 = [each for each in ON_A_CPU if "smollm2" in each.stem]


@pytest.mark.parametrize("config", [each for each in ON_A_CPU if each not in OF_SMOLLM2], ids=lambda path: path.stem)
def test_every_config_of_the_embedded_model_is_planned(config, capsys):
    with safe_open(Path(caopd.models.__file__).parent / "embedded" / "model.safetensors", "pt") as file:
        num_weights = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 (no mapping)
    made = plan(capsys, config)
    assert memory(made)["weights"]["training"] == 4 * num_weights
    assert any(each.startswith("prompts of") for each in made["assumptions"])
    assert made["device"]["name"] == "cpu"
    assert made["warnings"] == []


@needs_smollm2
@pytest.mark.parametrize(
    "config",
    [path if path.stem == "smollm2_arithmetic" else pytest.param(path, marks=pytest.mark.slow) for path in OF_SMOLLM2],
    ids=lambda path: path.stem,
)
def test_every_config_of_a_gguf_file_is_planned(config, capsys):
    made = plan(capsys, config, *LENGTHS)
    assert memory(made)["weights"]["training"] == 4 * 134_515_008
    assert made["device"]["name"] == "cpu"
    assert made["warnings"] == []


def test_tables_are_printed_by_default(capsys):
    assert main(["plan", "--config", str(QUICKSTART)]) == 0
    text = capsys.readouterr().out
    for words in ("A round", "optimizer steps", "Memory of a process", "activations", "Time of a round", "It fits."):
        assert words in text


STARTED_BY_A_LARGE_PROCESS = """
import subprocess, sys
held = b"1" * (1500 * 2**20)
subprocess.run([sys.executable, "-m", "caopd", "plan", "--config", sys.argv[1], "--json"], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the process's own peak is read from /proc")
def test_the_libraries_are_not_what_the_starting_process_holds():
    command = [sys.executable, "-c", STARTED_BY_A_LARGE_PROCESS, str(QUICKSTART)]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 200 * 2**20 < memory(made)["interpreter and libraries"]["training"] < 1400 * 2**20


def test_what_does_not_fit_is_a_warning(qwen3, capsys):
    config = next(each for each in ON_A_GPU if each.stem == "sdft_caopd")
    options = [f"--model.source.name_or_path={qwen3['8B']}", "--trainer.devices=1", "--trainer.strategy=auto"]
    made = plan(capsys, config, *options, *LENGTHS)
    assert any("will not fit" in each for each in made["warnings"])
    lora = [*options, "--model.source.dtype=bfloat16", "--model.source.lora.rank=16", *LENGTHS]
    pytest.importorskip("peft")
    adapted = plan(capsys, config, *lora)
    assert memory(adapted)["gradients"]["training"] == 4 * 43_646_976
    assert adapted["peak_bytes"] < made["peak_bytes"] / 3


def test_a_model_or_rows_that_are_not_at_hand_are_errors(qwen3, tmp_path, capsys):
    missing = tmp_path / "none"
    assert main(["plan", "--config", str(QUICKSTART), f"--model.source.name_or_path={missing}"]) == 2
    assert "could not load it" in capsys.readouterr().err
    config = f"--model.source.name_or_path={qwen3['8B']}"
    assert main(["plan", "--config", str(QUICKSTART), config]) == 2
    assert "state `--prompt_tokens`" in capsys.readouterr().err
    assert main(["plan", "--config", str(QUICKSTART), config, "--prompt_tokens=20", "--completion_tokens=9"]) == 2
    assert "at most that of the longest completion, 8" in capsys.readouterr().err
    assert main(["plan", "--config", str(QUICKSTART), "--data.batchsize=2"]) == 2
    assert main(["plan", "--device=abacus"]) == 2


def test_a_mixture_of_experts_is_refused(tmp_path, capsys):
    config = LlamaConfig(num_hidden_layers=2)
    config.num_experts = 8
    config.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    assert main(["plan", "--config", str(QUICKSTART), f"--model.source.name_or_path={tmp_path}"]) == 2
    assert "mixture of experts" in capsys.readouterr().err


def test_lengths_are_those_that_the_encoder_makes(capsys):
    made = plan(capsys, QUICKSTART, "--data.task.num_train=256", "--model.method=SDFT")["setup"]
    tokenizer, form = ModelSource().load_tokenizer(), InlineConfidence()
    encoder = SampleEncoder(tokenizer, form, {}, max_length=512, max_new_tokens=8)
    examples = DrawTask(num_train=256).examples("train")
    student = [len(prompt) for prompt in encoder.student_prompts(examples)]
    method = SDFT()
    teacher = [len(ids) for ids in encoder.teacher_prompts([(each, method.known_context(each)) for each in examples])]
    for name, lengths in {"prompts": student, "teacher_prompts": teacher, "completions": [8]}.items():
        assert made[name] == {"mean": sum(lengths) / len(lengths), "longest": max(lengths)}
    revised = plan(capsys, QUICKSTART, "--data.task.num_train=256")["setup"]  # CaOPD may append a segment
    assert revised["completions"]["longest"] == encoder.longest_completion
    solved = plan(capsys, QUICKSTART, "--data.task.num_train=256", "--model.method=SDPO")["setup"]
    note = [(each, TeacherContext("solution", "", 1.0, empirical=True)) for each in examples]
    longest = max(len(ids) for ids in encoder.teacher_prompts(note))
    assert solved["teacher_prompts"]["longest"] == longest + 8  # the solution is a completion


def test_held_out_prompts_are_not_sampled_where_validation_is_off(capsys):
    made = plan(capsys, QUICKSTART)["setup"]
    assert (made["held_out_rows"], made["held_out_length"]) == (500, 8)
    assert plan(capsys, QUICKSTART, "--trainer.limit_val_batches=0")["setup"]["held_out_rows"] == 0


def test_a_method_without_rollouts_has_neither_teacher_nor_sampling(capsys):
    made = plan(capsys, QUICKSTART, "--data.task.num_train=256", "--model.method=SFT")
    assert made["setup"]["engine"]["kind"] == "none"
    assert made["round"]["training samples"] == 256
    assert not {"teacher", "key-value cache (transformers)"} & set(memory(made))
    assert 2 <= made["setup"]["completions"]["mean"] <= 10
    assert "rollouts" not in made["seconds"]


@pytest.mark.parametrize(("momentum", "bytes_per_weight"), [(0.0, 0), (0.9, 4)])
def test_the_optimizers_state_is_that_of_the_config(momentum, bytes_per_weight, capsys):
    chosen = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", f"--model.optimizer.momentum={momentum}"]
    made = memory(plan(capsys, QUICKSTART, *chosen))
    assert made.get("optimizer state", {"step": 0})["step"] == bytes_per_weight * made["weights"]["step"] / 4


def test_teachers_of_the_config(capsys):
    frozen, region = (
        plan(capsys, QUICKSTART, f"--model.teacher={rule}")["setup"]["teacher"] for rule in ("Frozen", "TrustRegion")
    )
    assert (frozen["moves"], frozen["with_student"]) == (False, False)
    assert region["with_student"]
    assert plan(capsys, QUICKSTART)["setup"]["teacher"]["moves"]


GROUPS = [
    *("--config", str(QUICKSTART.parent / "smollm2_science.yaml"), "--model.source.name_or_path=embedded"),
    *("--model.method=SDFT", "--trainer.accumulate_grad_batches=1", "--trainer.max_epochs=1"),
    *("--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false"),
    *("--data.engine=caopd.rollouts.TransformersEngine", "--data.evaluation.tasks={}"),
    *("--data.round={num_prompts_per_round: 6, num_rollouts: 4, num_trained_rollouts: null}", "--data.batch_size=24"),
    "--data.sampling.max_new_tokens=1",  # so that completions are as long as is planned
]


def write_questions(file, lengths):
    rows = [{"idx": n, "prompt": f"{n} {'x' * (length - 14)}\n\nA: 1\nB: 2", "answer": "B"} for n, length in lengths]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"--data.task.source.files.{split}={file}" for split in ("train", "validation", "test")]


@pytest.mark.parametrize("limit", [None, 400])
def test_rows_and_padding_are_those_of_a_fit(limit, tmp_path, capsys):
    options = [*GROUPS, *write_questions(tmp_path / "rows.jsonl", enumerate([60, 95, 130, 210, 265, 330]))]
    options += [] if limit is None else [f"--data.tokens_per_batch={limit}"]
    assert main(["plan", *options, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["round"]
    tokens = counts["tokens the student reads"] + counts["tokens the teacher reads"]
    planned = tokens / (tokens + counts["padding that both read"])
    assert main(["fit", *options, f"--trainer.default_root_dir={tmp_path}"]) == 0
    (found,) = Run(tmp_path).scalars("train/share_of_tokens")
    assert planned == pytest.approx(found, rel=1e-6)
    assert planned < 1
    assert (counts["micro-batches of a process"] == 1) is (limit is None)
    separate = 4 * (60 + 95 + 130 + 210 + 265 + 330)
    assert counts["tokens the student reads"] < separate  # each prompt stands once
