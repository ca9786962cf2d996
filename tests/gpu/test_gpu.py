"""What a CPU cannot show: the same runs on a GPU, in its precisions. Skipped where there is none.

python -m pytest tests/gpu
"""

import math

import pytest
import torch

from caopd.confidence import InlineConfidence
from caopd.losses import JSD, ForwardKL, LossInputs, ModelOutput, ReverseKL, chunked_divergence
from caopd.models import ModelSource
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.rounds.encoding import SampleEncoder
from caopd.tasks import DrawTask

from ..integration.conftest import Run, command, every_step, fit_as_users_do  # noqa: F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

GPU = {"trainer.accelerator": "gpu", "trainer.check_val_every_n_epoch": 1}


@pytest.fixture
def gpu_fit(fit_as_users_do, tmp_path):  # noqa: F811
    def run(name, *configs, **settings):
        result = fit_as_users_do(tmp_path / name, *configs, **{**GPU, **settings})
        assert result.returncode == 0, result.stderr[-4000:]
        return Run(tmp_path / name)

    return run


def test_a_gpu_trains_as_a_cpu_does(gpu_fit):
    """In float32 without TF32, up to the order of sums; sampled tokens are the same where no sample is that close."""
    gpu, cpu = gpu_fit("gpu"), gpu_fit("cpu", **{"trainer.accelerator": "cpu"})
    assert gpu.scalars("train/loss")[0] == pytest.approx(cpu.scalars("train/loss")[0], rel=1e-4)
    assert gpu.scalars("rollout/accuracy")[0] == pytest.approx(cpu.scalars("rollout/accuracy")[0], abs=0.05)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_mixed_precision_trains_to_about_the_same_losses(precision, gpu_fit):
    mixed, full = gpu_fit("mixed", **{"trainer.precision": precision}), gpu_fit("full")
    assert all(math.isfinite(loss) for loss in mixed.scalars("train/loss"))
    assert mixed.scalars("train/loss")[0] == pytest.approx(full.scalars("train/loss")[0], rel=0.1)


def test_a_resume_within_a_round_is_bit_identical(gpu_fit, every_step):  # noqa: F811
    settings = {"trainer.deterministic": "true", "data.keep_rounds": "null"}
    whole = gpu_fit("whole", every_step, **settings)
    resumed = gpu_fit("resumed", every_step, ckpt_path=whole.checkpoint_file("step6"), **settings)
    expected = whole.checkpoint("step8")["state_dict"]
    for name, weight in resumed.checkpoint("step8")["state_dict"].items():
        assert torch.equal(weight, expected[name]), name


def test_a_learning_rate_that_is_too_high_ends_the_run(fit_as_users_do, tmp_path):  # noqa: F811
    result = fit_as_users_do(tmp_path, **GPU, **{"model.optimizer.init_args.lr": 3e4})
    assert result.returncode == 1
    assert "Expected finite numbers, but optimizer step" in result.stderr


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_recorded_log_probabilities_are_those_of_a_forward_pass(dtype, limit):
    source = ModelSource(dtype=dtype)
    tokenizer = source.load_tokenizer()
    model = source.load_model(tokenizer).cuda()
    engine = TransformersEngine()
    engine.start(tokenizer)
    engine.sync(model, 0)
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, 512, 8)
    prompts = encoder.student_prompts(DrawTask(num_train=16).examples("train"))
    requests = [RolloutRequest(prompt, seed) for seed, prompt in enumerate(prompts)]
    differences = []
    for prompt, group in zip(prompts, engine.generate(requests, 4, Sampling(max_new_tokens=8)), strict=True):
        for rollout in group:
            with torch.no_grad():
                logits = model.hf(torch.tensor([[*prompt, *rollout.token_ids]], device="cuda")).logits[0].float()
            scores = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            picked = scores.gather(1, torch.tensor(rollout.token_ids, device="cuda")[:, None])[:, 0]
            differences.append((picked.cpu() - torch.tensor(rollout.logprobs)).abs().mean())
    assert torch.stack(differences).mean() < limit


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JSD()], ids=str)
def test_the_chunked_loss_is_the_dense_one(divergence, dtype, tolerance):
    generator = torch.Generator("cuda").manual_seed(0)
    sizes = [(300, 64), (5000, 64), (300, 64), (5000, 64)]
    inputs = [torch.randn(size, device="cuda", generator=generator).mul(0.3).to(dtype) for size in sizes]
    hidden, head = inputs[0].requires_grad_(), inputs[1].requires_grad_()
    weight = torch.full((300,), 1 / 300, device="cuda")
    target = torch.zeros(300, dtype=torch.int64, device="cuda")
    tokens = LossInputs(weight, target.bool(), target, weight, weight, 1.0, target)
    loss, _ = chunked_divergence(ModelOutput(hidden, head), ModelOutput(*inputs[2:]), tokens, divergence, divergence)
    loss.backward()
    exact = [x.detach().double() for x in inputs]
    hidden64, head64 = exact[0].requires_grad_(), exact[1].requires_grad_()
    dense = divergence(hidden64 @ head64.T, exact[2] @ exact[3].T).mean()
    dense.backward()
    assert float(loss) == pytest.approx(float(dense), rel=tolerance)
    for found, expected in ((hidden.grad, hidden64.grad), (head.grad, head64.grad)):
        assert (found.double() - expected).norm() <= tolerance * expected.norm()
