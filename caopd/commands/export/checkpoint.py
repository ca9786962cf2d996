"""Makes a Hugging Face model directory of a Lightning checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from caopd.commands.export.card import CardFacts, model_card
from caopd.confidence import ConfidenceFormat, InlineConfidence
from caopd.errors import ConfigError, ModelError
from caopd.models import LanguageModel, ModelSource, check_finite
from caopd.models.weights import inference_weights
from caopd.run_directory import CONFIG, read_config, read_metrics, run_of_checkpoint, setting
from caopd.texts import check_utf8, write_text

Weights = Literal["student", "teacher"]


def export(
    checkpoint: Path,
    directory: Path,
    config: Path | None = None,
    weights: Weights = "student",
    overwrite: bool = False,
) -> None:
    """Write weights, tokenizer, generation config and model card.

    Args:
        checkpoint: A checkpoint file of a run.
        directory: Where the model is written.
        config: The config that the checkpoint was trained with; None is ``config.yaml`` of its run directory.
        weights: Which of the checkpoint's two models is written.
        overwrite: Whether the directory may hold files already.

    Raises:
        ConfigError: The directory is not empty or not in UTF-8, or the config is missing or names no model.
        ModelError: The checkpoint does not hold the weights that are asked for, or they are not finite.
        OSError: A file cannot be read or written.
    """
    check_utf8(directory, "the model's directory")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())) and not overwrite:
        raise ConfigError(
            f"Expected {directory} to be new or an empty directory, but it is not: name another one, or add "
            "`--overwrite`."
        )
    run = run_of_checkpoint(checkpoint)
    settings = _settings(run / CONFIG if config is None else config)
    source, confidence = _made(settings)
    saved = _read(checkpoint)
    tokenizer = source.load_tokenizer()
    model = _merged(source, tokenizer, _of(weights, saved["state_dict"], checkpoint))
    model.hf.generation_config = _greedy(model, setting(settings, "data", "evaluation", "sampling", "max_new_tokens"))
    facts = CardFacts(
        name=directory.resolve().name,
        weights=weights,
        step=int(saved["global_step"]),
        instruction=confidence.instruction,
        settings=settings,
        metrics=read_metrics(run),
    )
    card = model_card(facts)  # before anything is written
    model.hf.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    write_text(directory / "README.md", card)


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"Expected the config that the checkpoint was trained with, but there is no file {path}: name it with "
            "`--config`."
        )
    settings = read_config(path)
    if not isinstance(setting(settings, "model", "source"), dict):
        raise ConfigError(f"Expected {path} to say under `model.source` which model was trained, but it does not.")
    return settings


def _made(settings: Mapping[str, Any]) -> tuple[ModelSource, ConfidenceFormat]:
    """Make the model source and the confidence format of a config, as `caopd fit` does."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--source", type=ModelSource)
    parser.add_argument("--confidence", type=ConfidenceFormat | None)
    try:
        given = {"source": settings["model"]["source"], "confidence": setting(settings, "data", "confidence")}
        made: Namespace = parser.instantiate_classes(parser.parse_object(given))
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"Expected `model.source` and `data.confidence` as in `caopd fit`, but: {error}") from error
    # How attention is computed, and whether for training, matters to no file.
    source = replace(made.source, attn_implementation=None, gradient_checkpointing=False)
    return source, made.confidence or InlineConfidence()


def _read(checkpoint: Path) -> dict[str, Any]:
    if checkpoint.is_dir():
        raise ModelError(
            f"Expected a checkpoint file, but {checkpoint} is a directory of shards: make one file of it with `python "
            "-m lightning.pytorch.utilities.consolidate_checkpoint DIRECTORY`, or train with "
            "`save_distributed_checkpoint: false`."
        )
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"Expected {checkpoint} to be a checkpoint of `caopd fit`, but it cannot be read: {str(error)[:300]}"
        ) from error
    if not isinstance(saved, dict) or not {"state_dict", "global_step"} <= saved.keys():
        raise ModelError(
            f"Expected {checkpoint} to be a checkpoint of `caopd fit`, but it holds no `state_dict` and `global_step`."
        )
    return saved


def _of(weights: Weights, state: Mapping[str, Tensor], checkpoint: Path) -> dict[str, Tensor]:
    """Return the weights of one of the two models, under the names that a ``LanguageModel`` gives them."""
    found = {name.removeprefix(f"{weights}."): value for name, value in state.items() if name.startswith(f"{weights}.")}
    if not found:
        held = sorted({name.partition(".")[0] for name in state})
        raise ModelError(
            f"Expected {checkpoint} to hold the weights of a {weights}, but it holds only {', '.join(held)}. A teacher "
            "is there where the loss compares with one."
        )
    check_finite(found, f"the {weights} in {checkpoint}", "take an earlier checkpoint of the run.")
    return found


def _merged(source: ModelSource, tokenizer: PreTrainedTokenizerBase, weights: dict[str, Tensor]) -> LanguageModel:
    """Load the model that was trained, give it the checkpoint's weights, and merge its adapters if it has any."""
    model = source.load_model(tokenizer)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"Expected the checkpoint to hold the weights of {source.name_or_path!r}, which the config names under "
            f"`model.source`, but it is of another model: name its own config with `--config`. {str(error)[:400]} ..."
        ) from error
    if source.lora is None:
        return model
    plain = replace(source, lora=None).load_model(tokenizer)
    plain.hf.load_state_dict(dict(inference_weights(model, model.dtype)))
    return plain


def _greedy(model: LanguageModel, max_new_tokens: int | None) -> GenerationConfig:
    """Return the generation config that the metrics were measured with: greedy, with every stop token of training."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(model.stop_token_ids),
        pad_token_id=model.pad_token_id,
    )
