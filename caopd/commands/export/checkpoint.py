"""Makes a Hugging Face model directory of a Lightning checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from caopd.commands.export.card import CardFacts, model_card
from caopd.commands.outputs import together
from caopd.confidence import ConfidenceFormat, InlineConfidence
from caopd.errors import ConfigError, ModelError
from caopd.files import write_text
from caopd.models import LanguageModel, ModelSource, check_finite
from caopd.models.shards import META, SHARDED, check_shards, read_shards
from caopd.models.weights import inference_weights
from caopd.run_directory import CONFIG, read_config, read_metrics, run_of_checkpoint, setting
from caopd.texts import check_utf8

Weights = Literal["student", "teacher"]
_AS_DATA: dict[str, Any] = {"map_location": "cpu", "weights_only": True, "mmap": True}


def export(
    checkpoint: Path,
    directory: Path,
    config: Path | None = None,
    weights: Weights = "student",
    overwrite: bool = False,
) -> None:
    """Write weights, tokenizer, generation config and model card.

    Args:
        checkpoint: A checkpoint of a run, a file or the folder of a sharded one.
        directory: Where the model is written.
        config: The config that the checkpoint was trained with; None is ``config.yaml`` of its run directory, which
            may name no code but this package's.
        weights: Which of the checkpoint's two models is written.
        overwrite: Whether the directory may hold files already.

    Raises:
        ConfigError: The directory is not empty or not in UTF-8, or the config is missing, names no model, or asks for
            code that the user has not named.
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
    if config is None:
        _check_no_code(settings, run / CONFIG)
    source, confidence = _made(settings)
    max_new_tokens = setting(settings, "data", "evaluation", "max_new_tokens")
    if max_new_tokens is None:
        max_new_tokens = setting(settings, "data", "sampling", "max_new_tokens")
    if not isinstance(max_new_tokens, int | None):
        raise ConfigError(f"Expected `max_new_tokens` of the evaluation to be a number, but got {max_new_tokens!r}.")
    saved = _read(checkpoint, weights)
    tokenizer = source.load_tokenizer()
    model = _merged(source, tokenizer, _of(weights, saved["state_dict"], checkpoint))
    model.hf.generation_config = _greedy(model, max_new_tokens)
    facts = CardFacts(
        name=directory.resolve().name,
        weights=weights,
        step=int(saved["global_step"]),
        instruction=confidence.instruction,
        settings=settings,
        metrics=read_metrics(run),
    )
    card = model_card(facts)  # before anything is written
    with together(directory) as folder:
        model.hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_text(folder / "README.md", card)


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


def _check_no_code(settings: Mapping[str, Any], path: Path) -> None:
    """Raise where a config that the user has not named would have code run: it may have come with the checkpoint."""
    source, confidence = settings["model"]["source"], setting(settings, "data", "confidence")
    foreign = [
        each
        for each in _named_classes({"source": source, "class_path": confidence})
        if each.rpartition(".")[0] not in ("", ConfidenceFormat.__module__)
    ]
    asked = [*(["trust_remote_code: true"] if source.get("trust_remote_code") else []), *foreign]
    if asked:
        raise ConfigError(
            f"Expected {path}, which lies beside the checkpoint, to name no code but this package's, but it asks for "
            f"{', '.join(asked)}. If you trust it, say so with `--config {path}`."
        )


def _named_classes(value: object, is_class: bool = False) -> Iterator[str]:
    """Yield the paths of classes in a part of a config, also where a class stands for itself."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _named_classes(inside, key in ("class_path", "lora"))
    elif isinstance(value, list):
        for inside in value:
            yield from _named_classes(inside, is_class)
    elif is_class and value is not None:
        yield str(value)


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


def _read(checkpoint: Path, weights: Weights) -> dict[str, Any]:
    """Read a checkpoint: a file without the data of its tensors, of a folder of shards the weights alone."""
    try:
        saved = _of_shards(checkpoint, weights) if checkpoint.is_dir() else torch.load(checkpoint, **_AS_DATA)
    except UnpicklingError as error:
        raise ModelError(
            f"Expected {checkpoint} to be a checkpoint of `caopd fit`, but it is damaged, or holds more than plain "
            "data and could run code: it was not loaded."
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"Expected {checkpoint} to be a checkpoint of `caopd fit`, but it cannot be read: {str(error)[:300]}"
        ) from error
    if not (
        isinstance(saved, dict) and _are_weights(saved.get("state_dict")) and type(saved.get("global_step")) is int
    ):
        raise ModelError(
            f"Expected {checkpoint} to be a checkpoint of `caopd fit`, but it holds no `state_dict` and `global_step`."
        )
    return saved


def _of_shards(folder: Path, weights: Weights) -> dict[str, Any]:
    missing = [name for name in SHARDED if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"it is a folder without {' and '.join(missing)}, so no whole sharded checkpoint")
    check_shards(folder)
    step = torch.load(folder / META, **_AS_DATA).get("global_step")
    state = read_shards(folder, f"state_dict.{weights}.") or read_shards(folder, "state_dict.")
    return {"global_step": step, **state}


def _are_weights(state: object) -> bool:
    return isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


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
