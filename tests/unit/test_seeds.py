import itertools
import random
import subprocess
import sys

import torch

from caopd.seeds import derive_seed


def test_a_seed_is_the_same_in_every_process():
    code = "from caopd.seeds import derive_seed; print(derive_seed(0, 'rollout', 17))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert outputs == {str(derive_seed(0, "rollout", 17))}


def test_seeds_of_different_names_differ():
    names = list(itertools.product(range(20), ["order", "rollout", "teacher"], range(20)))
    assert len({derive_seed(*name) for name in names}) == len(names)


def test_parts_are_kept_apart():
    assert derive_seed("a", "b") != derive_seed("ab")
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed("a", "") != derive_seed("a")


def test_generators_take_every_seed():
    for n in range(200):
        seed = derive_seed(n)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)
        random.Random(seed)


def test_streams_of_neighbouring_seeds_are_unrelated():
    first = [torch.rand((), generator=torch.Generator().manual_seed(derive_seed(n))) for n in range(400)]
    values = torch.stack(first)
    assert abs(values.mean() - 0.5) < 5 * (1 / 12 / 400) ** 0.5
    correlation = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]
    assert abs(correlation) < 5 / 400**0.5
