"""The embedded model's architecture and tokenizer: a Llama of 0.2 million parameters that knows one task.

Every sentence of the prompt templates is one token, and so is every confidence from 0.00 to 1.00, which keeps a
teacher context under 25 tokens. All other text is read character by character.
"""

from __future__ import annotations

import re
import string

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from caopd.confidence import InlineConfidence
from caopd.prompts import CONTEXT_TEMPLATES, NOTE_CLOSING, NOTE_OPENING
from caopd.tasks.draw import KINDS

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLE_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>"]
END_TOKEN, PAD_TOKEN, UNKNOWN_TOKEN = "<|end|>", "<|pad|>", "<|unknown|>"
CONFIDENCES = [f"{percent / 100:.2f}" for percent in range(101)]
MAX_LENGTH = 512


def phrases() -> list[str]:
    """Return the fixed phrases in the prompts of ``DrawTask``; each of them is a single token."""
    confidence = InlineConfidence()
    segment_start = "\n" + confidence.render(0.5).removesuffix("0.50")
    note_end = NOTE_CLOSING.format(field=confidence.field_name) + "\n"
    contexts = [
        text for template in CONTEXT_TEMPLATES.values() for text in (f"\n\n{template.introduction}\n", template.closing)
    ]
    kinds = [f"Which {kind} digit was drawn from " for kind in KINDS]
    return [*kinds, f"\n\n{confidence.instruction}", *contexts, segment_start, "\n\n", NOTE_OPENING, note_end]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: whole phrases and confidences first, then single printable characters."""
    special = [PAD_TOKEN, UNKNOWN_TOKEN, END_TOKEN, *ROLE_TOKENS]
    characters = [character for character in string.printable if character not in "\r\x0b\x0c"]
    words = list(dict.fromkeys([*special, *phrases(), *CONFIDENCES, *characters]))
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN_TOKEN))
    longest_first = sorted([*phrases(), *CONFIDENCES], key=len, reverse=True)
    pattern = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        unk_token=UNKNOWN_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=ROLE_TOKENS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, width: int = 64, num_layers: int = 3) -> LlamaForCausalLM:
    """Build the untrained model; its attention heads have 32 dimensions, the fewest that vLLM takes on a CPU.

    Args:
        tokenizer: Gives the size of the vocabulary and the special ids.
        width: Hidden size of the model.
        num_layers: Number of decoder layers.
    """
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    place_confidences(model, tokenizer)
    return model


def place_confidences(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, length: float = 0.15) -> None:
    """Give close confidences close embeddings, random Fourier features of their values, in place.

    Args:
        model: The model whose input embeddings are written.
        tokenizer: Gives the ids of the 101 confidences.
        length: Norm of every embedding that is written.
    """
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        values = torch.tensor([float(text) for text in CONFIDENCES])
        frequencies = torch.randn(weight.shape[1] // 2) * 10.0
        angles = values[:, None] * frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        weight[tokenizer.convert_tokens_to_ids(CONFIDENCES)] = length * torch.nn.functional.normalize(features, dim=1)
