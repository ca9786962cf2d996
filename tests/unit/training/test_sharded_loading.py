"""Models that are loaded in shards, by processes of their own, are those that one process loads."""

import gc

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from caopd.distributed import close_group
from caopd.errors import ModelError
from caopd.models import External, Frozen, LoRA, ModelSource
from caopd.models.outlines import all_weights
from caopd.models.packing import pack
from caopd.models.tiny import build_model, build_tokenizer
from caopd.training.sharded_loading import ShardedLoader

ROWS = 8
"""That the head of the other model has beyond those of the student's."""


def work(rank, number, function, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=number)
    mesh = init_device_mesh("cpu", (number,))
    loader = ShardedLoader(ModelSource().load_tokenizer(), None, mesh, torch.device("cpu"))
    torch.save(function(loader), folder / f"{rank}.pt")
    close_group()
    distributed.destroy_process_group()


@pytest.fixture
def in_processes(tmp_path):
    def run(function, number):
        mp.start_processes(work, args=(number, function, tmp_path), nprocs=number, start_method="fork")
        return [torch.load(tmp_path / f"{rank}.pt") for rank in range(number)]

    return run


def whole(model):
    return {
        name: weight.full_tensor() if isinstance(weight, DTensor) else weight
        for name, weight in all_weights(model).items()
    }


def logits(model):
    sequences = pack([(4, 7, 9), (5, 6)], [(8, 11, 12), (9, 10, 3, 2)], 0)
    with torch.no_grad():
        return model(sequences, lambda hidden, head: hidden @ head.T)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("source", [ModelSource(), ModelSource(lora=LoRA(rank=2))], ids=["embedded", "lora"])
def test_student_and_teacher_are_those_of_one_process(source, number, in_processes, tokenizer):
    """Three processes share weights of 64 and of 1 rows unevenly."""

    def load(loader):
        torch.manual_seed(loader._mesh.get_rank())  # adapters begin with numbers that process 0 draws
        student = loader.load(source).train()
        teacher = Frozen().make(student, loader)
        held = sum(weight.to_local().numel() for weight in student.parameters())
        said = [held, student.training, teacher.training, any(w.requires_grad for w in teacher.parameters())]
        return [whole(student), whole(teacher), logits(student), logits(teacher), said]

    torch.manual_seed(0)
    expected = source.load_model(tokenizer)
    each = in_processes(load, number)
    for student, teacher, its_logits, teachers, said in each:
        for name, weight in all_weights(expected).items():
            assert torch.equal(student[name], weight), name
            assert torch.equal(teacher[name], weight), name
        torch.testing.assert_close(its_logits, logits(expected))
        torch.testing.assert_close(teachers, logits(expected))
        assert said[1:] == [True, False, False]
    held = [said[0] for *_, said in each]
    size = sum(weight.numel() for weight in expected.parameters())
    assert sum(held) == size
    assert max(held) < 1.1 * size / number


def test_another_model_is_sharded_with_the_students_rows(in_processes, tokenizer, tmp_path):
    torch.manual_seed(0)
    model = build_model(build_tokenizer(), width=32, num_layers=1)
    model.resize_token_embeddings(len(tokenizer) + ROWS)
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    source = ModelSource(str(tmp_path / "other"))

    def load(loader):
        return whole(External(source).make(loader.load(ModelSource()), loader))

    for found in in_processes(load, 2):
        for name, weight in model.named_parameters():
            assert torch.equal(found[f"hf.{name}"], weight[: len(tokenizer)]), name


def test_process_0_keeps_no_whole_model(in_processes):
    """Nor leaves one to the next garbage collection, which is off here: weights are let go as they are sent."""

    def tensors():
        return [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]

    def load(loader):
        gc.disable()
        before = tensors()
        student = loader.load(ModelSource())
        Frozen().make(student, loader)
        known = {id(each) for each in before}
        new = [each for each in tensors() if id(each) not in known and not isinstance(each, DTensor)]
        return max(each.numel() for each in new if not each.is_meta)

    rows, width = len(ModelSource().load_tokenizer()), 64
    assert max(in_processes(load, 2)) <= (rows + 1) // 2 * width


def test_what_process_0_cannot_load_is_an_error_in_all(in_processes, tmp_path):
    def load(loader):
        with pytest.raises(ModelError, match=r"`model.source.name_or_path` = 'nowhere'"):
            loader.load(ModelSource("nowhere"))

    assert in_processes(load, 2) == [None, None]
