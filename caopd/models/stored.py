"""Settings that a model's files hold beside weights, architecture and special tokens.

They are undone where they would change what is sampled or trained, and refused where they cannot be undone. Generation
defaults are undone by :class:`caopd.models.LanguageModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from caopd.errors import ModelError
from caopd.models.finite import check_finite

_NOISE = ("drop", "jitter")
"""Parts of the names of settings that act in training mode alone: dropout, dropped layers, noise in a router."""


def settle_config(config: PreTrainedConfig, name: str) -> None:
    """Switch off, in place, what makes training compute something else than sampling, or runs code from elsewhere.

    Args:
        config: The model's config, as its file has it.
        name: Name of the model, for messages.

    Raises:
        ModelError: If the weights are quantised.
    """
    if hasattr(config, "quantization_config"):
        raise ModelError(
            f"Expected the weights of {name!r} to be in full precision, but its config.json has a "
            "`quantization_config`: training changes them by less than a quantised weight can hold. Choose the model "
            "that it was made from."
        )
    # How attention and experts are computed is the user's choice; a name may stand for a kernel whose code is fetched.
    config._attn_implementation = config._experts_implementation = None
    config.return_dict = True
    config.output_attentions = config.output_hidden_states = False
    for part in (config, config.get_text_config()):
        for entry, value in list(vars(part).items()):
            if isinstance(value, float) and any(word in entry for word in _NOISE):
                setattr(part, entry, 0.0)


def settle_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the tokenizer read the special tokens of a rendered chat template as special tokens, in place.

    Args:
        tokenizer: The tokenizer, as its files have it.

    Raises:
        ModelError: If it has several chat templates and none of them is the default.
    """
    tokenizer.split_special_tokens = False
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        raise ModelError(
            f"Expected one of the chat templates of {tokenizer.name_or_path!r} to be named `default`, but they are "
            f"{', '.join(sorted(templates))}: put the one that prompts are rendered with into `chat_template.jinja`."
        )


def check_loaded(hf: PreTrainedModel, loading_info: Mapping[str, Any], name: str) -> None:
    """Raise if not every weight came from the files, is finite, and can be trained.

    Args:
        hf: The model, as transformers loaded it.
        loading_info: What transformers returned with ``output_loading_info``.
        name: Name of the model, for messages.

    Raises:
        ModelError: If weights are missing, not finite or frozen.
    """
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise ModelError(
            f"Expected the files of {name!r} to hold every weight that its config.json asks for, but {len(missing)} "
            f"are missing and would be random, for example {missing[0]}: correct config.json (`num_hidden_layers`? "
            "`tie_word_embeddings`?), or fetch the files anew."
        )
    check_finite(hf.state_dict(), repr(name), "fetch its files anew, or take one from before its training diverged.")
    frozen = [key for key, weight in hf.named_parameters() if not weight.requires_grad]
    if frozen:
        raise ModelError(
            f"Expected every weight of {name!r} to be trainable, but {len(frozen)} are frozen, for example "
            f"{frozen[0]}: if its files hold an adapter (adapter_config.json), merge it first (`merge_and_unload` of "
            "peft) and save that model."
        )
