"""The command's own file, before anything heavy is imported."""

import subprocess
import sys

BAR = "from caopd.cli import main; main(['--version']); from tqdm.auto import tqdm; list(tqdm(range(3)))"


def test_bars_of_libraries_are_not_drawn_into_a_log():
    ended = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
