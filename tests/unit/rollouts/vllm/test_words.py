"""What a user reads of vLLM's own words; each line below was printed by a real vLLM or its libraries."""

import re

import pytest

from caopd.rollouts.vllm.words import last_words, remedy_of

LOG = """\
INFO 11-26 17:03:01 [utils.py:233] non-default args: {'model': '/tmp/x'}
(EngineCore pid=6352) ERROR 11-26 17:12:41 [core.py:1750]   File "/site-packages/vllm/v1/engine/core.py", line 1080
(EngineCore pid=6352) ERROR 11-26 17:12:41 [core.py:1750]     raise RuntimeError(
(EngineCore pid=6352) ERROR 11-26 17:12:41 [core.py:1750] RuntimeError: Worker failed with error 'no room'
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
RuntimeError: Worker failed with error 'no room'
FutureWarning: `torch.distributed.reduce_op` is deprecated
"""
QUIET = "Triton is installed, but doesn't include CPU backend. Disabling Triton.\n"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "vllm.log"


def test_errors_are_shown_once_without_tracebacks(log):
    log.write_text(LOG)
    assert last_words(log).splitlines() == [
        " Its last words:",
        "RuntimeError: Worker failed with error 'no room'",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    ]


def test_without_an_error_the_last_lines_are_shown_unless_errors_alone_are_asked_for(log):
    log.write_text(QUIET)
    assert last_words(log) == f" Its last words:\n{QUIET.strip()}"
    assert last_words(log, errors_alone=True) == ""
    log.write_text("")
    assert last_words(log) == ""


def test_last_words_fit_on_a_screen(log):
    log.write_text("".join(f"ValueError: {number} {'long ' * 1000}\n" for number in range(100)))
    assert len(last_words(log)) < 700


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("EngineArgs.__init__() got an unexpected keyword argument 'no_such'", "`arguments`.*no `no_such`"),
        ("User-specified max_model_len (100000) is greater than the derived max_model_len", "^Lower `max_model_len`"),
        ("No available memory for the cache blocks.", "^Raise `kv_cache_gib`"),
        ("Available memory on node 0 (21.49/23.54 GiB) on kv cache allocation is less than", "lower `kv_cache_gib`"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "less memory"),
        ("vLLM's process has ended (killed by SIGKILL).", "less memory"),
        ("Model architectures ['X'] are not supported for now.", "TransformersEngine"),
        ("vLLM is stuck: no answer within 6 s", "time limit"),
        ("vLLM holds policy version -1 in place of 6: it lost the weights.", "restarted"),
        ("something else", "own words"),
    ],
)
def test_what_to_do_follows_from_the_reason(reason, remedy):
    assert re.search(remedy, remedy_of(reason))
