"""Chooses which completions share a prompt, and which trees share a row, by what reading them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Tree = tuple[int, ...]
"""Numbers of the sequences whose completions follow one prompt."""
_CAPACITIES = (1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Lengths of a row that are tried, in lengths of the longest tree."""
MASKED_ATTENTION_FACTOR = 1.4
"""How much longer an operation takes in attention under a mask than in a matrix product, forward and backward: measured
on a CPU in float32."""


@dataclass(frozen=True, slots=True)
class PackingCost:
    """What it costs a model to read B rows of length L, in units of what a token costs it outside attention.

    It is B L (1 + pair L) under a mask, which is computed for all pairs of tokens. Causal attention needs no mask and
    skips half of the pairs: B L (1 + pair L / 2).

    Attributes:
        pair: Cost of one pair of a query and a key, forward and backward, under a mask.
    """

    pair: float

    @classmethod
    def of_model(cls, num_weights: int, attention_width: int) -> PackingCost:
        """Return what reading rows costs a model.

        Args:
            num_weights: Number of weights that every token is multiplied with outside attention, the head's left out.
            attention_width: Query heads times their size, added up over all layers.
        """
        return cls(MASKED_ATTENTION_FACTOR * 4 * attention_width / (2 * num_weights))

    def of(self, num_rows: float, length: float, is_plain: bool) -> float:
        """Return the cost of so many rows of a length.

        Args:
            num_rows: B.
            length: L, padding included.
            is_plain: Whether no mask is needed.
        """
        return num_rows * length * (1 + self.pair * length / (2 if is_plain else 1))


@dataclass(frozen=True, slots=True)
class Layout:
    """Which sequences stand in which row.

    Attributes:
        rows: The trees of every row.
        length: Length of the rows, in tokens.
    """

    rows: tuple[tuple[Tree, ...], ...]
    length: int

    @property
    def is_plain(self) -> bool:
        """Whether every row is a single sequence."""
        return all(len(row) == 1 and len(row[0]) == 1 for row in self.rows)


def lay_out(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int], cost: PackingCost | None) -> Layout:
    """Return the layout of least cost among those tried: one sequence a row, and trees in rows of several lengths.

    A tree may be cut into several, each with the prompt: long completions under a mask would cost more than the prompts
    that they save. All are cut into the same number of trees, up to one for every sequence. Trees go into rows by
    decreasing length, each into the first one that has room.

    Args:
        prompts: Token ids of the prompt of every sequence.
        lengths: Number of tokens of every completion.
        cost: What reading rows costs; None gives every sequence a row.

    Example:
        >>> prompts, lengths = [(1,) * 50, (1,) * 50, (2,) * 20], [10, 10, 10]
        >>> lay_out(prompts, lengths, PackingCost(pair=0.001))
        Layout(rows=(((0, 1), (2,)),), length=100)
        >>> lay_out(prompts, lengths, PackingCost(pair=0.1)).is_plain
        True
    """
    plain = _rows([(number,) for number in range(len(prompts))], prompts, lengths, capacity=0)
    if cost is None:
        return plain
    members: dict[tuple[int, ...], list[int]] = {}
    for number, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(number)
    layouts, largest = [plain], max(map(len, members.values()))
    for parts in sorted({-(-largest // size) for size in range(1, largest + 1)}):  # trees of each possible size
        trees = [tree for some in members.values() for tree in _cut(some, lengths, parts)]
        longest = max(_size(tree, prompts, lengths) for tree in trees)
        layouts += [_rows(trees, prompts, lengths, int(factor * longest)) for factor in _CAPACITIES]
    return min(layouts, key=lambda layout: cost.of(len(layout.rows), layout.length, layout.is_plain))


def _size(tree: Sequence[int], prompts: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> int:
    return len(prompts[tree[0]]) + sum(lengths[number] for number in tree)


def _cut(members: Sequence[int], lengths: Sequence[int], parts: int) -> list[Tree]:
    """Return the sequences of one prompt as so many trees, or one for each, of about equally many and as long ones."""
    by_length = sorted(members, key=lambda number: -lengths[number])
    return [tuple(sorted(by_length[first::parts])) for first in range(min(parts, len(members)))]


def _rows(trees: Sequence[Tree], prompts: Sequence[tuple[int, ...]], lengths: Sequence[int], capacity: int) -> Layout:
    """Return the trees in rows of at most the capacity; a tree that is longer has a row of its own."""
    sizes = {tree: _size(tree, prompts, lengths) for tree in trees}
    order = sorted(trees, key=lambda tree: -sizes[tree]) if capacity else trees
    rows: list[list[Tree]] = []
    filled: list[int] = []
    for tree in order:
        room = (number for number, length in enumerate(filled) if length + sizes[tree] <= capacity)
        number = next(room, len(rows))
        if number == len(rows):
            rows.append([])
            filled.append(0)
        rows[number].append(tree)
        filled[number] += sizes[tree]
    return Layout(tuple(map(tuple, rows)), max(filled))
