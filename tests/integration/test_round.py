"""A round is made and read without a Trainer, and is the one that a run trains on."""

import contextlib

from caopd.confidence import InlineConfidence
from caopd.methods import SDFT, CaOPD
from caopd.methods.estimators import MonteCarlo
from caopd.models import ModelSource
from caopd.rollouts import Sampling, TransformersEngine
from caopd.rounds.buffer import load_groups
from caopd.rounds.completer import Completer
from caopd.rounds.config import RoundConfig
from caopd.rounds.diagnostics import TeacherProbe
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.groups import GroupSampler, Policies
from caopd.rounds.parity import ParityConfig
from caopd.rounds.phases import PhaseClock
from caopd.rounds.prompts import Curriculum
from caopd.rounds.round import RoundMaker
from caopd.tasks import DrawTask, stages_of


def test_a_round_by_hand_is_the_first_of_a_run(fit, tmp_path):
    tokenizer = ModelSource().load_tokenizer()
    student = ModelSource(attn_implementation="eager").load_model(tokenizer)
    engine, sampling = TransformersEngine(), Sampling(temperature=1.0, max_new_tokens=8)
    engine.start(tokenizer)
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, sampling.max_new_tokens)
    sampler = GroupSampler(
        Completer(engine, tokenizer, InlineConfidence(), PhaseClock(), contextlib.nullcontext),
        encoder,
        CaOPD(SDFT()),
        MonteCarlo(),
        RoundConfig(num_prompts_per_round=16, num_rollouts=4, num_trained_rollouts=1),
        sampling,
        ParityConfig(),
    )
    curriculum = Curriculum(stages_of(DrawTask(num_train=64)), num_prompts=16, seed=0)
    curriculum.load(lambda examples: encoder.check(examples, sampler.method))
    made = RoundMaker(sampler, TeacherProbe()).make(0, curriculum.round(0), Policies(student, None, version=0))

    run = fit(tmp_path, **{"trainer.max_epochs": 1})
    assert list(made.groups) == load_groups(run.directory / "rollouts" / "round_00000.jsonl")
    logged = {tag.removeprefix("rollout/") for tag in run.events.Tags()["scalars"] if tag.startswith("rollout/")}
    assert logged == set(made.statistics)
    assert [sample.confidence for sample in made.trained] == [group.mu_hats[0] for group in made.groups]
    ids = [sample.student_prompt_ids for sample in made.tokenized(encoder)]
    assert ids == [group.prompt_ids for group in made.groups]
