"""Whether the embedded model, as a teacher, copies the confidence of its context, with and without a solution there."""

from __future__ import annotations

import random

import torch
from torch.nn.utils.rnn import pad_sequence

from caopd.confidence import InlineConfidence
from caopd.models import ModelSource
from caopd.rounds.encoding import SampleEncoder
from caopd.types import Response, TeacherContext, TrainSample
from targeting.hard_draws import HardDraws

NUM_QUESTIONS = 500
EIGHTHS = [count / 8 for count in range(9)]


@torch.no_grad()
def copied(location: str = "embedded") -> dict[str, float]:
    """Return the share of confidences, of a random eighth after a random answer, whose every token is the likeliest."""
    source = ModelSource(location, attn_implementation="eager")
    tokenizer = source.load_tokenizer()
    model = source.load_model(tokenizer)
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, max_length=512, max_new_tokens=8)
    examples, rng = HardDraws(num_validation=NUM_QUESTIONS).examples("validation"), random.Random(0)
    stated = [(example, str(rng.randrange(10)), rng.choice(EIGHTHS)) for example in examples]
    shares = {}
    for name, with_solution in {"solution and note": True, "note alone": False}.items():
        samples = [
            TrainSample(
                example,
                Response(answer),
                TeacherContext("solution", example.target if with_solution else None, value, empirical=True),
                value,
            )
            for example, answer, value in stated
        ]
        tokenized = encoder.encode(samples, encoder.student_prompts(examples))
        rows = [torch.tensor((*each.teacher_prompt_ids, *each.completion.token_ids)) for each in tokenized]
        ids = pad_sequence(rows, batch_first=True, padding_value=model.pad_token_id)
        likeliest = model.hf(input_ids=ids).logits.argmax(-1)  # padding is on the right, and seen by nobody before it
        right = 0
        for row, each, predicted in zip(rows, tokenized, likeliest, strict=True):
            segment = torch.tensor(each.completion.confidence_mask).nonzero().squeeze(1) + len(each.teacher_prompt_ids)
            right += bool((predicted[segment - 1] == row[segment]).all())
        shares[name] = right / len(rows)
    return shares
