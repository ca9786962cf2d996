"""CaOPD on SDFT, the whole loop in plain PyTorch and transformers, to be read next to its paper (arXiv 2604.16830).

    OMP_NUM_THREADS=1 python examples/loop.py

Of caopd it takes data alone: the files of the embedded model, and questions such as "Which even digit was drawn from
38526?". Its settings are those of configs/quickstart.yaml, and a test compares its first step with the package's.
Suffixes of names are shapes: B sequences, L padded length, C tokens of a completion, V vocabulary.
"""

import argparse
import copy
from itertools import takewhile
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import PreTrainedModel as Model

import caopd
from caopd.tasks import DrawTask
from caopd.types import Example

MODEL = Path(caopd.__file__).parent / "models" / "embedded"
NUM_ROLLOUTS, BATCH_SIZE, EMA_RATE = 8, 32, 0.0005
ASK = (
    "After your answer, state how confident you are that it is correct, on a last line of its own: "
    "`Confidence: p`, with p between 0.00 and 1.00."
)
STATE = "\nConfidence: "
VALUES = {f"{percent / 100:.2f}" for percent in range(101)}
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
END = TOKENIZER.eos_token_id
Ids = list[int]
Sample = tuple[Ids, Ids, Ids]  # the student's prompt, the teacher's prompt, the revised completion after either


def prompt(row: Example, mu_hat: float | None = None) -> Ids:
    """The question; with mu_hat, the question as the teacher sees it, with a demonstration that states mu_hat."""
    text = f"{row.question}\n\n{ASK}"
    if mu_hat is not None:
        text += (
            f"\n\nThis is an example for a response to the question:\n{row.demonstration}{STATE}{mu_hat:.2f}\n\n"
            f"The empirical confidence for this question is {mu_hat:.2f}. Output exactly this value in the "
            "`Confidence:` field.\nNow answer with a response of your own, including the thinking process."
        )
    return TOKENIZER.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]


@torch.no_grad()
def complete(model: Model, prompts: list[Ids], **settings: object) -> list[Ids]:
    """Complete every prompt with the most probable tokens, or as the settings of `generate` say."""
    padded = TOKENIZER.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    output = model.generate(**padded, max_new_tokens=8, **settings)[:, padded["input_ids"].shape[1] :].tolist()
    return [ids[: ids.index(END) + 1] if END in ids else ids for ids in output]


def read(completion: Ids) -> tuple[str, float | None]:
    """The answer and the stated confidence, None where none can be read."""
    answer, _, stated = TOKENIZER.decode(completion, skip_special_tokens=True).partition(STATE)
    return answer, float(stated) if stated in VALUES else None


def revise(completion: Ids, mu_hat: float) -> Ids:
    """Overwrite the stated confidence with mu_hat; every token before it stays as it was sampled."""
    segment = TOKENIZER(f"{STATE}{mu_hat:.2f}")["input_ids"]
    return [*takewhile(lambda token: token not in (segment[0], END), completion), *segment, END]


def make_samples(rows: list[Example], rollouts: list[Ids]) -> list[Sample]:
    """Verify every row's rollouts: mu_hat is the share of right answers. Revise the first one to train on."""
    samples = []
    for number, row in enumerate(rows):
        group = rollouts[number * NUM_ROLLOUTS : (number + 1) * NUM_ROLLOUTS]
        mu_hat = sum(read(completion)[0] == row.target for completion in group) / NUM_ROLLOUTS
        samples.append((prompt(row), prompt(row, mu_hat), revise(group[0], mu_hat)))
    return samples


def log_probs(model: Model, prompts: list[Ids], completions: list[Ids]) -> list[torch.Tensor]:
    """The model's log-probabilities [C, V] at every place of each completion, given all that stands before it."""
    rows = [torch.tensor(before + behind) for before, behind in zip(prompts, completions, strict=True)]
    mask_BL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits_BLV = model(input_ids=pad_sequence(rows, batch_first=True), attention_mask=mask_BL).logits
    places = [slice(len(before) - 1, len(row) - 1) for before, row in zip(prompts, rows, strict=True)]
    return [logits_LV[place].log_softmax(-1) for logits_LV, place in zip(logits_BLV, places, strict=True)]


def distillation_loss(student: Model, teacher: Model, samples: list[Sample], reverse: bool) -> torch.Tensor:
    """KL(student || teacher) as in equation 7, or KL(teacher || student): mean over tokens, then over completions."""
    student_prompts, teacher_prompts, completions = zip(*samples, strict=True)
    student_log_probs = log_probs(student, student_prompts, completions)
    with torch.no_grad():
        teacher_log_probs = log_probs(teacher, teacher_prompts, completions)
    pairs = (student_log_probs, teacher_log_probs) if reverse else (teacher_log_probs, student_log_probs)
    return torch.stack([(p_CV.exp() * (p_CV - q_CV)).sum(-1).mean() for p_CV, q_CV in zip(*pairs, strict=True)]).mean()


@torch.no_grad()
def follow(teacher: Model, student: Model) -> None:
    """Move the teacher, an exponential moving average, a little towards the student."""
    for average, weight in zip(teacher.parameters(), student.parameters(), strict=True):
        average.lerp_(weight, EMA_RATE)


def evaluate(model: Model, rows: list[Example]) -> str:
    """Accuracy of greedy completions, and expected calibration error (ten bins) of those that state a confidence."""
    correct, gaps = [], [[] for _ in range(10)]
    for row, completion in zip(rows, complete(model, [prompt(row) for row in rows]), strict=True):
        answer, stated = read(completion)
        correct.append(answer == row.target)
        if stated is not None:
            gaps[min(round(100 * stated) // 10, 9)].append(stated - correct[-1])
    ece = sum(abs(sum(each)) for each in gaps) / sum(map(len, gaps))
    return f"greedy accuracy {sum(correct) / len(correct):.3f}, greedy ECE {ece:.3f}"


def main(rounds: int, prompts: int, reverse: bool) -> None:
    """Train, and say what came of it on questions that were held out."""
    torch.manual_seed(0)
    task = DrawTask(num_train=rounds * prompts, num_validation=500)
    train, held_out = task.examples("train"), task.examples("validation")
    student = AutoModelForCausalLM.from_pretrained(MODEL, attn_implementation="eager")
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1.2e-3, betas=(0.9, 0.98))
    w = round(0.05 * (n := rounds * len(range(0, prompts, BATCH_SIZE))))  # optimizer steps of the warm-up, and of all
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / (w + 1), (n - s) / (n - w)))
    print("before:  ", evaluate(student, held_out), sep="")
    for number in range(rounds):
        rows = train[number * prompts : (number + 1) * prompts]
        sampling = {"do_sample": True, "top_k": 0, "num_return_sequences": NUM_ROLLOUTS}
        samples = make_samples(rows, complete(student, [prompt(row) for row in rows], **sampling))
        for first in range(0, prompts, BATCH_SIZE):
            loss = distillation_loss(student, teacher, samples[first : first + BATCH_SIZE], reverse)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            follow(teacher, student)
        print(f"round {number + 1:2}: loss {loss.item():.3f}")
    print("after:   ", evaluate(student, held_out), sep="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="CaOPD on SDFT for the embedded model.")
    parser.add_argument("--rounds", type=int, default=30, help="%(default)s by default")
    parser.add_argument("--prompts", type=int, default=256, help="of a round, %(default)s by default")
    parser.add_argument("--reverse", action="store_true", help="the paper's KL(student || teacher)")
    main(**vars(parser.parse_args()))
