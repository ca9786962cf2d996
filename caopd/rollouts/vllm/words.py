"""What vLLM says when it fails, and what a user can do about it."""

from __future__ import annotations

import re
from pathlib import Path

_MOST_LINES = 4
_MOST_CHARACTERS = 600
_OF_LOGGING = re.compile(r"^(\([^)]*\)\s*)*((ERROR|WARNING|INFO|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception|Exit|Interrupt)\b|^terminate called|out of memory|^Killed")
_REMEDIES = (
    (r"unexpected keyword argument '(\w+)'", r"Correct `arguments` of the engine's options: vLLM knows no `\1`."),
    (r"max_model_len|max_position_embeddings", "Lower `max_model_len` of the engine's options, or leave it out."),
    (
        r"[Nn]o available memory for the cache|larger than the available KV cache",
        "Raise `kv_cache_gib` of the engine's options, on a GPU `memory_share`, or lower `max_model_len`.",
    ),
    (
        r"out of memory|[Aa]vailable memory|[Ff]ree memory|can't allocate memory|MemoryError|SIGKILL",
        "Let vLLM take less memory: lower `kv_cache_gib`, `max_num_seqs` or `memory_share` of the engine's options, or "
        "raise `tensor_parallel_size`.",
    ),
    (
        r"[Mm]odel architectures? .*(not supported|failed to be inspected)|does not recognize this architecture",
        "Set `data.engine` to `caopd.rollouts.TransformersEngine`, or install a vLLM that knows the model.",
    ),
    (r"stuck", "Raise the time limit if vLLM needs longer."),
    (r"lost the weights|different policies", "Look into the servers' logs for why one was restarted."),
)
_OTHER = "Correct the engine's options, as vLLM's own words ask for."


def remedy_of(reason: str) -> str:
    """Return what to do about a failure, as one sentence that names the setting.

    Args:
        reason: Why vLLM failed, in its own words.
    """
    for pattern, remedy in _REMEDIES:
        found = re.search(pattern, reason)
        if found:
            return found.expand(remedy)
    return _OTHER


def last_words(log: Path, errors_alone: bool = False) -> str:
    """Return the last errors in what a process of vLLM has printed, as a sentence to append to a message.

    Args:
        log: What it has printed.
        errors_alone: Return nothing where it names no error, in place of its last lines.
    """
    lines = [_OF_LOGGING.sub("", line).rstrip() for line in log.read_text(errors="replace").splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line and "Warning" not in line))
    errors = [line for line in lines if _ERROR.search(line)]
    shown = errors if errors or errors_alone else lines
    words = "\n".join(shown[-_MOST_LINES:])[-_MOST_CHARACTERS:]
    return f" Its last words:\n{words}" if words else ""
