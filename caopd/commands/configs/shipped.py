"""The configs that come with the package, which ``--config`` takes by their names."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from caopd.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs"
"""In a checkout a link to its folder ``configs``; the wheel holds the files themselves."""
_SUFFIX = ".yaml"
_NAME = re.compile(r"[\w./-]+")


@cache
def shipped() -> dict[str, Path]:
    """Return the configs by name, such as ``quickstart`` and ``data/gsm8k``, those of data sets last.

    Example:
        >>> shipped()["data/gsm8k"].name
        'gsm8k.yaml'
    """
    files = [*sorted(FOLDER.glob(f"*{_SUFFIX}")), *sorted(FOLDER.glob(f"*/*{_SUFFIX}"))]
    return {file.relative_to(FOLDER).with_suffix("").as_posix(): file for file in files}


def config_file(given: str) -> str:
    """Return the file that a value of ``--config`` means: one that is there, or else the config of that name.

    Args:
        given: A path, a name, or a config itself, written as YAML, which is returned as it is.

    Raises:
        ConfigError: It looks like a path or a name, but there is no such file and no such config.

    Example:
        >>> Path(config_file("quickstart")).name
        'quickstart.yaml'
    """
    if not _NAME.fullmatch(given) or Path(given).exists():
        return given
    name = given.removesuffix(_SUFFIX)
    if name in shipped():
        return str(shipped()[name])
    raise ConfigError(
        f"Expected `--config` to be a file, or the name of a config that comes with caopd, but got "
        f"{given!r}.{_guess(name)} `caopd configs` lists the names."
    )


def config_named(name: str) -> Path:
    """Return the file of a config that comes with the package.

    Args:
        name: One of the keys of :func:`shipped`; ``.yaml`` may follow.

    Raises:
        ConfigError: There is none of this name.
    """
    plain = name.removesuffix(_SUFFIX)
    if plain not in shipped():
        raise ConfigError(
            f"Expected the name of a config, but got {name!r}.{_guess(plain)} `caopd configs` lists them."
        )
    return shipped()[plain]


def about(file: Path) -> str:
    """Return what the first line of a config says of it.

    Args:
        file: The config.
    """
    with file.open(encoding="utf-8") as lines:
        return next(lines).removeprefix("#").strip().removesuffix(" Over a method's config:")


def _guess(name: str) -> str:
    close = get_close_matches(name.removeprefix("configs/"), shipped(), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
