"""The size of a decoder: its weights, floating-point operations, cache and activations, from its config alone.

A layer is counted as Llama's: projections to queries, keys, values and back, a gated MLP (three matrices), norms by the
root mean square. Qwen3, SmolLM2, Gemma-3 and Olmo-3 differ in their norms, which are counted as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caopd.models.layout import PackingCost

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number of each dtype."""
_NORM_BYTES = 4
_NORMS_PER_LAYER = {"gemma3_text": 4}
_NORMS_OF_HEADS = ("qwen3", "gemma3_text")
_NORMS_OF_ALL_HEADS = ("olmo3",)


@dataclass(frozen=True)
class ModelSize:
    """The widths of a dense decoder, and what follows from them.

    Attributes:
        vocab_size: Rows of the embedding and of the head.
        hidden_size: Width of the residual stream.
        intermediate_size: Width inside the MLP.
        num_layers: Number of decoder layers.
        num_heads: Number of query heads.
        query_width: Query heads times their size; the width of the attention's output before its projection.
        key_width: Key heads times their size; the values' width too.
        norms_per_layer: Norms of the residual stream's width in each layer.
        query_norm: Number of weights of the norms of queries and keys in each layer; 0 without such norms.
        biases: Number of weights of the linear layers' biases in each layer.
        tied: Whether the head is the embedding.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    query_width: int
    key_width: int
    norms_per_layer: int = 2
    query_norm: int = 0
    biases: int = 0
    tied: bool = False

    @classmethod
    def of(cls, config: PreTrainedConfig) -> ModelSize:
        """Return the size of the text model that a config of transformers describes.

        A mixture of experts is counted as if it had one dense MLP.

        Args:
            config: The config; of a model for several kinds of input, the text model's part is read.
        """
        text = config.get_text_config()
        kind, heads = text.model_type, text.num_attention_heads
        keys = getattr(text, "num_key_value_heads", None) or heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        hidden, inner = text.hidden_size, getattr(text, "intermediate_size", None) or 4 * text.hidden_size
        norm = 2 * head if kind in _NORMS_OF_HEADS else (heads + keys) * head if kind in _NORMS_OF_ALL_HEADS else 0
        attention_bias = (heads + 2 * keys) * head + hidden if getattr(text, "attention_bias", False) else 0
        return cls(
            vocab_size=text.vocab_size,
            hidden_size=hidden,
            intermediate_size=inner,
            num_layers=text.num_hidden_layers,
            num_heads=heads,
            query_width=heads * head,
            key_width=keys * head,
            norms_per_layer=_NORMS_PER_LAYER.get(kind, 2),
            query_norm=norm,
            biases=attention_bias + (2 * inner + hidden if getattr(text, "mlp_bias", False) else 0),
            tied=bool(text.tie_word_embeddings),
        )

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each linear layer of a decoder layer, by Llama's names."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, self.query_width),
            "k_proj": (hidden, self.key_width),
            "v_proj": (hidden, self.key_width),
            "o_proj": (self.query_width, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def linear_weights_per_layer(self) -> int:
        """Number of weights of a layer's matrices."""
        return sum(rows * columns for rows, columns in self.linear_layers.values())

    @property
    def layer_parameters(self) -> int:
        """Number of weights of one decoder layer."""
        norms = self.norms_per_layer * self.hidden_size + self.query_norm
        return self.linear_weights_per_layer + norms + self.biases

    @property
    def embedding_parameters(self) -> int:
        """Number of weights of the input embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def body_parameters(self) -> int:
        """Number of weights between the embedding and the head, the last norm included."""
        return self.num_layers * self.layer_parameters + self.hidden_size

    @property
    def head_parameters(self) -> int:
        """Number of weights of the head beyond the embedding's: 0 where the head is the embedding."""
        return 0 if self.tied else self.embedding_parameters

    @property
    def num_parameters(self) -> int:
        """Number of all weights, a tied head counted once."""
        return self.embedding_parameters + self.body_parameters + self.head_parameters

    def packing_cost(self, num_adapter_weights: int = 0) -> PackingCost:
        """Return what reading rows costs the model.

        Args:
            num_adapter_weights: Number of weights of its adapters.
        """
        return PackingCost.of_model(self.body_parameters + num_adapter_weights, self.num_layers * self.query_width)

    def adapter_parameters(self, rank: int, targets: Sequence[str] | None) -> int:
        """Return the number of weights of low-rank adapters: of rank times the input and output width of each layer.

        Args:
            rank: Rank of the adapters.
            targets: Names, or ends of names, of the adapted linear layers; None adapts all.
        """
        names = None if targets is None else {target.rpartition(".")[2] for target in targets}
        widths = [sum(pair) for name, pair in self.linear_layers.items() if names is None or name in names]
        return self.num_layers * rank * sum(widths)

    @property
    def linear_flops_per_token(self) -> int:
        """Operations of a forward pass through the body's matrices, per token: two for every weight."""
        return 2 * self.num_layers * self.linear_weights_per_layer

    @property
    def head_flops_per_token(self) -> int:
        """Operations of the head, per token whose logits are computed."""
        return 2 * self.embedding_parameters

    @property
    def attention_flops_per_pair(self) -> int:
        """Operations of a forward pass per pair of a query's and a key's token that attention computes, in all layers.

        A score is a product of the heads' width, and so is its share of the output.
        """
        return 4 * self.query_width * self.num_layers

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Return the bytes of one token's keys and values in the caches of all layers.

        Args:
            dtype: Dtype of the cache, a key of :data:`BYTES`.
        """
        return 2 * self.key_width * self.num_layers * BYTES[dtype]

    def layer_activation_bytes(self, dtype: str, mixed: bool = False, repeated: bool = True) -> int:
        """Return the bytes per token that a layer saves for its backward pass.

        Norms compute in float32 and save their input and what they scale it to. Linear layers save their input, once
        where several share it, but under autocast each saves a copy of its own. Attention saves queries, its output,
        keys and values; the MLP saves four tensors of its width. What attention saves per pair of tokens is in
        :meth:`attention_bytes_per_pair`.

        Args:
            dtype: Dtype that matrices are multiplied in.
            mixed: Whether the weights are float32 and autocast converts them.
            repeated: Whether keys and values are repeated for every query head, as they are under a mask.
        """
        hidden = self.hidden_size
        normed = self.norms_per_layer * hidden + (self.query_width + self.key_width if self.query_norm else 0)
        inputs = (5 if mixed else 2) * hidden
        keys = self.query_width if repeated else self.key_width
        rest = inputs + 2 * self.query_width + 2 * keys + 4 * self.intermediate_size
        return 2 * _NORM_BYTES * normed + BYTES[dtype] * rest

    def activation_bytes_per_token(
        self, dtype: str, mixed: bool = False, checkpointing: bool = False, repeated: bool = True
    ) -> int:
        """Return the bytes per token that the body saves for its backward pass, at the most.

        With gradient checkpointing these are every layer's input, and the activations of the layer being recomputed.

        Args:
            dtype: Dtype that matrices are multiplied in.
            mixed: Whether the weights are float32 and autocast converts them.
            checkpointing: Whether a layer's activations are recomputed in the backward pass.
            repeated: Whether keys and values are repeated for every query head, as they are under a mask.
        """
        layer, last_norm = self.layer_activation_bytes(dtype, mixed, repeated), 2 * _NORM_BYTES * self.hidden_size
        if not checkpointing:
            return self.num_layers * layer + last_norm
        return self.num_layers * self.hidden_size * (4 if mixed else BYTES[dtype]) + layer + last_norm

    def attention_bytes_per_pair(self, dtype: str, eager: bool = False, checkpointing: bool = False) -> int:
        """Return the bytes that the body saves per pair of a query's and a key's token in one row.

        Scaled dot-product attention saves a mask that it is given, once for all heads; eager attention saves weights
        of every head, in float32 and, where that is another one, in the dtype that they are multiplied in.

        Args:
            dtype: Dtype that matrices are multiplied in.
            eager: Whether attention is computed by plain products.
            checkpointing: Whether a layer's activations are recomputed in the backward pass.
        """
        number = BYTES[dtype]
        pair = self.num_heads * (4 if number == 4 else 4 + number) if eager else number
        return pair * (1 if checkpointing else self.num_layers)
