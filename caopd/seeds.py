"""Seeds derived from names, so that every random stream can be recomputed and none depends on another's length."""

import hashlib


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**63) that is the same on every machine for the same parts.

    Args:
        parts: Numbers and strings that say what the stream belongs to, for example a run's seed and a prompt's id.

    Example:
        >>> derive_seed(0, 3, "prompt-17") == derive_seed(0, 3, "prompt-17")
        True
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
