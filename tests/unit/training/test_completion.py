"""What the Tab key completes, asked of the shells themselves."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from caopd.cli import main
from caopd.commands.configs.shipped import shipped

shtab = pytest.importorskip("shtab", reason="needs shtab: pip install 'caopd[completion]'")
COMPLETED = [
    ("caopd fi", {"fit"}),
    ("caopd fit --trainer.max_ep", {"--trainer.max_epochs"}),
    ("caopd fit --model.method SD", {"SDFT", "SDPO"}),
    ("caopd fit --data.engine T", {"TransformersEngine"}),
    ("caopd fit --model.decay ", {"all", "matrices"}),
    ("caopd fit --config qui", {"quickstart"}),
    ("caopd fit --config mine", {"mine.yaml"}),
    ("caopd plan --device rtx", {"rtx4090-24g"}),
    ("caopd validate --ckpt_path mine", {"mine.yaml"}),
    ("caopd export --weights ", {"student", "teacher"}),
    ("caopd data ", {"check"}),
]
BASH = """source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_shtab_caopd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
SET_UP = "fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; echo rea''dy\n"


class Terminal:
    """An interactive zsh at a terminal."""

    def __init__(self, folder):
        self._end, shells = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "400"}
        self._zsh = subprocess.Popen(
            ["zsh", "-f", "-i"],
            cwd=folder,
            env=environment,
            stdin=shells,
            stdout=shells,
            stderr=shells,
            process_group=0,
        )
        os.close(shells)

    def shows(self, typed, expected):
        """Whether a text appears within some seconds after something was typed."""
        os.write(self._end, typed.encode())
        shown, end = "", time.monotonic() + 30
        while expected not in shown and time.monotonic() < end:
            if select.select([self._end], [], [], 0.5)[0]:
                shown += os.read(self._end, 4096).decode(errors="replace")
        return expected in shown

    def close(self):
        self._zsh.kill()
        self._zsh.wait()
        os.close(self._end)


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_bash_completes(tmp_path, capsys):
    (tmp_path / "caopd.bash").write_text(script("bash", capsys))
    (tmp_path / "mine.yaml").touch()
    for line, expected in COMPLETED:
        words = " ".join(f'"{word}"' for word in line.split(" "))
        asked = BASH.format(script="caopd.bash", words=words)
        found = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert set(found.stdout.split()) == expected, (line, found.stderr)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(tmp_path, capsys):
    (tmp_path / "_caopd").write_text(script("zsh", capsys))
    zsh = Terminal(tmp_path)
    try:
        assert zsh.shows(SET_UP.format(folder=tmp_path), "ready")
        for line, added in (("caopd fit --config quick", "start"), ("caopd fit --model.method PlainD", "istillation")):
            assert zsh.shows(f"\x15{line}\t", added), line
    finally:
        zsh.close()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_knows_all_configs_and_stays_small(shell, capsys):
    """What lists every class inside of every other is read by the shell for seconds."""
    text = script(shell, capsys)
    assert all(name in text for name in shipped())
    assert len(text) < 200_000


def test_without_shtab_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr("caopd.training.completion.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'caopd[completion]'" in capsys.readouterr().err
