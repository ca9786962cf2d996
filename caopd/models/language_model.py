"""Wraps a Hugging Face causal language model: hidden states, an output head, and generation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from caopd.errors import ConfigError, ModelError
from caopd.models.layout import PackingCost
from caopd.models.packing import PackedSequences, attention_masks, can_share, pack

T = TypeVar("T")
HeadFunction = Callable[[Tensor, Tensor], T]
"""A function of hidden states [T, H] and the head's weight [V, H]; it may return anything."""
LOGIT_SETTINGS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier")
"""What config.json calls a cap or a factor of the logits: Gemma 2, Granite, Cohere, Falcon-H1."""


class LanguageModel(nn.Module):
    """Wraps a causal language model so that the batch's logits need not exist.

    The final hidden states and the head's weight go to a function that runs *inside* ``forward``, where a sharded
    model's root parameters are gathered; its result is the result of ``forward``.

    Args:
        hf: The wrapped model; of its generation defaults, only the special tokens are kept.
        stop_token_ids: Every id that ends a completion.
        pad_token_id: Id that fills the left of shorter prompts.
        lora_rank: Rank of the LoRA adapters in ``hf``; None for a model without.

    Attributes:
        can_share: Whether the model computes the same where several completions follow one prompt.
    """

    def __init__(
        self, hf: PreTrainedModel, stop_token_ids: tuple[int, ...], pad_token_id: int, lora_rank: int | None = None
    ) -> None:
        super().__init__()
        self.hf = hf
        # `generate` fills whatever a call leaves open from here: penalties, suppressed tokens, a cache switched off.
        hf.generation_config = GenerationConfig(eos_token_id=list(stop_token_ids), pad_token_id=pad_token_id)
        self.training = hf.training
        self.stop_token_ids = stop_token_ids
        self.pad_token_id = pad_token_id
        self.lora_rank = lora_rank
        self._is_compiled = False
        self.can_share = can_share(hf.config.get_text_config())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        parameter: nn.Parameter = next(self.parameters())
        return parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        parameter: nn.Parameter = next(self.parameters())
        return parameter.dtype

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in their order."""
        return next(module for module in self.hf.base_model.modules() if isinstance(module, nn.ModuleList))

    def compile_layers(self, backend: str) -> None:
        """Have ``forward`` run every decoder layer through ``torch.compile``, in place.

        One compiled layer serves for all, and for rows of any length. Sampling stays as it is: its cache grows by a
        token a step.

        Args:
            backend: Name of one of torch's backends, such as ``inductor``.

        Raises:
            ConfigError: If torch has no such backend.
        """
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise ConfigError(
                f"Expected `model.source.torch_compile_backend` to be one of torch's backends, {', '.join(known)}, but "
                f"got {backend!r}."
            )
        for layer in self.layers:
            layer.compile(backend=backend, dynamic=True)
        self._is_compiled = True

    def _uncompiled(self) -> AbstractContextManager[None]:
        return torch.compiler.set_stance("force_eager") if self._is_compiled else nullcontext()

    @property
    def packing_cost(self) -> PackingCost | None:
        """What reading rows costs; None for a model that cannot read several completions after one prompt."""
        config = self.hf.config.get_text_config()
        if not self.can_share:
            return None
        embedding = self.hf.get_input_embeddings().weight
        num_weights = sum(weight.numel() for weight in self.hf.base_model.parameters()) - embedding.numel()
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return PackingCost.of_model(num_weights, config.num_hidden_layers * heads * head_size)

    def forward(self, sequences: PackedSequences, head_function: HeadFunction[T]) -> T:
        """Apply ``head_function`` to the hidden states that *predict* completion tokens and to the head's weight.

        Args:
            sequences: Prompts with their completions.
            head_function: Called with the hidden states [T, H] before each completion token, sequence by sequence, and
                the head's weight [V, H].
        """
        config = self.hf.config.get_text_config()
        hidden_BLH = self.hf.base_model(
            input_ids=sequences.ids_BL,
            attention_mask=attention_masks(sequences, config, self.dtype),
            position_ids=None if sequences.is_plain else sequences.position_BL,
            use_cache=False,
        ).last_hidden_state
        hidden_TH = hidden_BLH.flatten(0, 1).index_select(0, sequences.predictor_T)
        return head_function(hidden_TH, self.hf.get_output_embeddings().weight)

    @torch.no_grad()
    def hidden_and_head(self, sequences: PackedSequences) -> tuple[Tensor, Tensor]:
        """Return hidden states [T, H] and the whole head [V, H] without gradients; a sharded head is gathered.

        Args:
            sequences: Prompts with their completions.
        """
        hidden_TH = self(sequences, lambda hidden, head: hidden)
        head_VH = self.hf.get_output_embeddings().weight
        return hidden_TH, head_VH.full_tensor() if isinstance(head_VH, DTensor) else head_VH.detach()

    @torch.no_grad()
    def generate(
        self,
        input_ids_PL: Tensor,
        attention_mask_PL: Tensor,
        num_rollouts: int,
        max_new_tokens: int,
        processor: LogitsProcessor,
    ) -> Tensor:
        """Complete every prompt ``num_rollouts`` times with transformers' ``generate``; each prompt is read only once.

        Args:
            input_ids_PL: Left-padded prompts, long [P, L].
            attention_mask_PL: 1 at tokens, 0 at padding [P, L].
            num_rollouts: G, the number of completions per prompt.
            max_new_tokens: Length of the longest completion, in tokens.
            processor: Chooses the tokens, by leaving one finite score per row.

        Returns:
            Completions [P * G, C], those of a prompt one after the other, padded after their stop tokens.
        """
        with self._uncompiled():
            # The class's `generate`: with `trust_remote_code` a repository may have put another one into the instance.
            sequences_BL = type(self.hf).generate(
                self.hf,
                input_ids=input_ids_PL.repeat_interleave(num_rollouts, dim=0),
                attention_mask=attention_mask_PL.repeat_interleave(num_rollouts, dim=0),
                past_key_values=self._read_prompts(input_ids_PL, attention_mask_PL, num_rollouts),
                generation_config=GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False),
                logits_processor=LogitsProcessorList([processor]),
                # Sharded processes must run equally many forward passes: the last to finish decides.
                synced_gpus=any(isinstance(parameter, DTensor) for parameter in self.parameters()),
            )
        completions_BC: Tensor = sequences_BL[:, input_ids_PL.shape[1] :]
        return completions_BC

    def _read_prompts(self, input_ids_PL: Tensor, attention_mask_PL: Tensor, num_rollouts: int) -> DynamicCache | None:
        """Return the key-value cache of all prompt tokens but the last, repeated for each of the rollouts."""
        if num_rollouts == 1 or input_ids_PL.shape[1] == 1:
            return None
        mask_PL = attention_mask_PL[:, :-1]
        cache = DynamicCache(config=self.hf.config)
        self.hf.base_model(
            input_ids=input_ids_PL[:, :-1],
            attention_mask=mask_PL,
            position_ids=(mask_PL.cumsum(dim=1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(num_rollouts)
        return cache

    @torch.no_grad()
    def check_head(self) -> None:
        """Raise if the logits are not hidden states times head: such a model would need a loss of its own.

        Raises:
            ModelError: If the model scales, caps or shifts its logits.
        """
        config = self.hf.config.get_text_config()
        for name in LOGIT_SETTINGS:  # by name, too: on small logits a cap or a scale of nearly 1 is not seen
            value = getattr(config, name, None)
            if value is not None and value != 1:
                raise ModelError(
                    f"Expected the logits of {type(self.hf).__name__} to be hidden states times the head's weight, but "
                    f"its config.json has {name} = {value}. The chunked loss cannot train this model: choose another "
                    "model (Llama, Qwen, Mistral and SmolLM architectures work)."
                )
        probe = self._probe()
        hidden_TH, head_VH = self.hidden_and_head(probe)
        logits_TV = self.hf(input_ids=probe.ids_BL, use_cache=False).logits.flatten(0, 1)[probe.predictor_T]
        difference = ((hidden_TH @ head_VH.T).float() - logits_TV.float()).abs().max()
        if difference > 1e-2 * logits_TV.float().abs().max():
            raise ModelError(
                f"Expected the logits of {type(self.hf).__name__} to be hidden states times the head's weight, but "
                "they differ (a bias, scaled or capped logits?). The chunked loss cannot train this model: choose "
                "another model (Llama, Qwen, Mistral and SmolLM architectures work)."
            )

    @torch.no_grad()
    def check_modes(self) -> None:
        """Raise if training mode computes something else than evaluation mode, in which rollouts are sampled.

        Raises:
            ModelError: If hidden states differ.
        """
        probe = self._probe()
        was_training, states = self.training, []
        for mode in (True, False):
            states.append(self.train(mode).hidden_and_head(probe)[0].float())
        self.train(was_training)
        if (states[0] - states[1]).abs().max() > 1e-2 * states[1].abs().max():
            raise ModelError(
                f"Expected {type(self.hf).__name__} to compute the same in training as when rollouts are sampled, but "
                "its hidden states differ (dropout or noise under a name that is not known?): set it to 0 in the "
                "model's config.json, or choose another model."
            )

    @torch.no_grad()
    def settle_packing(self) -> None:
        """Give up sharing prompts, with a warning, if the model computes something else where a prompt is shared.

        What it computes then is not decided by the mask and the positions that it is given.
        """
        if not self.can_share:
            return
        apart, shared = (self.hidden_and_head(self._probe(cost))[0].float() for cost in (None, PackingCost(pair=0.0)))
        most = 1e-2 if self.dtype.itemsize >= 4 else 1e-1  # two orders of the same sums in 16 bits differ by 2 %
        self.can_share = bool((apart - shared).abs().max() <= most * apart.abs().max())
        if not self.can_share:
            rank_zero_warn(
                f"{type(self.hf).__name__} does not compute the same where several completions follow one prompt: "
                "training reads the prompt of a group once for every rollout, which takes longer."
            )

    def warn_untrained(self) -> None:
        """Warn if a parameter that is to be trained has no influence on the logits of some test tokens."""
        trained = {name: weight for name, weight in self.hf.named_parameters() if weight.requires_grad}
        logits_TV = self(self._probe(), lambda hidden_TH, head_VH: hidden_TH @ head_VH.T)
        gradients = torch.autograd.grad(logits_TV.sum(), list(trained.values()), allow_unused=True)
        unused = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
        if unused:
            rank_zero_warn(
                f"{len(unused)} of {len(trained)} weights that are to be trained had no part in the logits of some "
                f"tokens, for example {unused[0]}. Unless it is an expert that no token was sent to, it will never be "
                "trained: name other layers in `target_modules` of `model.source.lora`."
            )

    def _probe(self, cost: PackingCost | None = None) -> PackedSequences:
        """Return two prompts, each with two completions of several lengths, on the model's device."""
        ids = (torch.arange(12) % self.hf.config.get_text_config().vocab_size).tolist()
        prompts, completions = [ids[:3], ids[:3], ids[4:6], ids[4:6]], [ids[3:8], ids[6:8], ids[1:4], ids[8:]]
        return pack(prompts, completions, self.pad_token_id, cost).to(self.device)


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return every id that ends a completion: those of the generation config and the tokenizer's own.

    Raises:
        ModelError: If neither of them names one.
    """
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    if tokenizer.eos_token_id is not None:
        ids.append(int(tokenizer.eos_token_id))
    if not ids:
        raise ModelError(
            "Expected the generation config or the tokenizer to name an end-of-sequence token, but neither does: "
            "set `eos_token` in the tokenizer's files."
        )
    return tuple(dict.fromkeys(ids))
