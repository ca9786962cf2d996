"""What a plan is computed from: the numbers of a run's config, and of its models' configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from caopd.commands.plan.micro_batches import MicroBatch
from caopd.models.layout import PackingCost
from caopd.models.size import ModelSize


@dataclass(frozen=True)
class Lengths:
    """Lengths of some texts, in tokens.

    Attributes:
        mean: The mean length.
        longest: The largest length.
    """

    mean: float
    longest: int

    def __add__(self, other: Lengths) -> Lengths:
        """Return the lengths of texts of which one follows the other."""
        return Lengths(self.mean + other.mean, self.longest + other.longest)


@dataclass(frozen=True)
class StudentSetup:
    """The trained model.

    Attributes:
        size: Its size.
        dtype: Dtype of its weights that are not adapters.
        trained: Number of weights that are trained; those of the adapters, where there are some.
        trained_dtype: Their dtype.
        adapted: Whether adapters are trained, and the weights under them stay as they are.
        compute_dtype: Dtype that matrices are multiplied in.
        attention: How attention is computed, by transformers' names.
        checkpointing: Whether activations are recomputed in the backward pass.
        optimizer_bytes: Bytes that the optimizer keeps per trained weight.
    """

    size: ModelSize
    dtype: str
    trained: int
    trained_dtype: str
    adapted: bool
    compute_dtype: str
    attention: str
    checkpointing: bool
    optimizer_bytes: float

    @property
    def mixed(self) -> bool:
        """Whether autocast converts float32 weights."""
        return self.compute_dtype != self.dtype and self.dtype == "float32"

    @property
    def frozen(self) -> int:
        """Number of weights that are not trained."""
        return self.size.num_parameters if self.adapted else 0

    @property
    def reading_cost(self) -> PackingCost:
        """What reading rows costs it."""
        return self.size.packing_cost(self.trained if self.adapted else 0)


@dataclass(frozen=True)
class TeacherSetup:
    """The second model.

    Attributes:
        size: Its size.
        dtype: Dtype of its weights that are not adapters.
        is_copy: Whether it is a copy of the student, which shares the weights that are not trained.
        moves: Whether an optimizer step moves it.
        with_student: Whether the student reads the teacher's prompts, too, and both heads are laid side by side.
        attention: How attention is computed, by transformers' names.
        adapters: Number of weights of its adapters.
    """

    size: ModelSize
    dtype: str
    is_copy: bool
    moves: bool
    with_student: bool
    attention: str
    adapters: int = 0

    @property
    def reading_cost(self) -> PackingCost:
        """What reading rows costs it."""
        return self.size.packing_cost(self.adapters)


@dataclass(frozen=True)
class EngineSetup:
    """What samples completions.

    Attributes:
        kind: ``transformers``, with the student in memory; ``vllm``, with a copy of its own on the same devices;
            ``servers`` elsewhere; or ``none``.
        batch_size: Largest number of completions that transformers samples at once.
        dtype: Dtype of vLLM's copy.
        memory_share: Share of a GPU that vLLM takes while it samples.
        cache_gib: Size of vLLM's key-value cache in GiB where it is fixed.
        devices: Number of devices that share vLLM's copy.
        sleeps: Whether vLLM gives its memory back while the student trains.
    """

    kind: Literal["transformers", "vllm", "servers", "none"]
    batch_size: int = 512
    dtype: str = "float32"
    memory_share: float = 0.0
    cache_gib: float | None = None
    devices: int = 1
    sleeps: bool = True


@dataclass(frozen=True)
class Setup:
    """A run in numbers.

    Attributes:
        student: The trained model.
        teacher: The second model, None without one.
        engine: What samples completions.
        processes: Number of processes that train together, one per device.
        sharded: Whether they share weights, gradients and optimizer state, or hold copies.
        num_prompts: Prompts of a round.
        num_rollouts: G, completions per prompt; 0 where none are sampled.
        num_samples: Training samples of a round.
        num_steps: Optimizer steps of a round.
        typical: Micro-batches of all processes in a round, completions of the mean length.
        largest: Micro-batches of which one needs the most memory, completions as long as they may be.
        chunk_size: Tokens whose logits exist at a time.
        prompts: Lengths of the student's prompts.
        teacher_prompts: Lengths of the teacher's prompts.
        completions: Lengths of completions that are trained on.
        held_out_rows: Completions of held-out prompts that are sampled at once.
        held_out_length: Length, in tokens, of the longest of them.
        nodes: Number of machines that the processes are on.
    """

    student: StudentSetup
    teacher: TeacherSetup | None
    engine: EngineSetup
    processes: int
    sharded: bool
    num_prompts: int
    num_rollouts: int
    num_samples: int
    num_steps: int
    typical: Sequence[MicroBatch]
    largest: Sequence[MicroBatch]
    chunk_size: int
    prompts: Lengths
    teacher_prompts: Lengths
    completions: Lengths
    held_out_rows: int
    held_out_length: int
    nodes: int = 1

    @property
    def shards(self) -> int:
        """Number of parts that weights are cut into."""
        return self.processes if self.sharded else 1

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches of one process in a round."""
        return len(self.typical) // self.processes

    @property
    def num_trained_tokens(self) -> int:
        """Tokens of a round that have a part in the loss."""
        return sum(batch.num_completion_tokens for batch in self.typical)

    @property
    def rows_at_once(self) -> int:
        """Completions that transformers samples at once in one process, in training; a group is never split."""
        if not self.num_rollouts:
            return 0
        groups = max(1, self.engine.batch_size // self.num_rollouts)
        return min(groups, -(-self.num_prompts // self.processes)) * self.num_rollouts
