"""Two nodes, simulated on the loopback device: two agents of ``torchrun``, and the variables that SLURM sets.

Real are the launchers' environment, the processes and their connection; both nodes share one machine and its disk.
"""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.integration.conftest import QUICKSTART, SIZES, options
from tests.vllm_servers import free_port

pytestmark = pytest.mark.slow

NODES = {"trainer.num_nodes": 2, "trainer.devices": 1, "trainer.strategy": "ddp", "trainer.max_epochs": 40}
SECONDS = 300


class Nodes:
    """A command on two nodes, each with a log of its own."""

    def __init__(self, root):
        self.root = root
        self.started = []

    def start(self, launcher, **settings):
        """Start the quickstart on small settings, by what launches process 0 and 1: arguments and variables."""
        merged = {**SIZES, **NODES, "trainer.default_root_dir": self.root, **settings}
        arguments = ["-m", "caopd", "fit", f"--config={QUICKSTART}", *options(merged)]
        port = free_port()
        for node in range(2):
            before, variables = launcher(node, port)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
            log = (self.root / f"node{len(self.started)}.txt").open("w")
            command = [sys.executable, *before, *arguments]
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.root))
        return self.started[-2:]

    def printed(self, node):
        """What a node of the last start has printed."""
        return (self.root / f"node{len(self.started) - 2 + node}.txt").read_text()

    def wait_for_round(self, number):
        end = time.monotonic() + SECONDS
        while not list(self.root.rglob(f"round_{number:05d}.jsonl")):
            assert time.monotonic() < end, self.printed(0)[-3000:]
            time.sleep(0.1)


@pytest.fixture
def nodes(tmp_path):
    made = Nodes(tmp_path)
    yield made
    for process in made.started:
        kill(process)


def kill(process):
    """Kill a node: what was started, with all that it has started."""
    if process.poll() is None:
        family = psutil.Process(process.pid)
        for member in [*family.children(recursive=True), family]:
            member.kill()


def torchrun(node, port):
    agent = ["-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}", "--nproc_per_node=1"]
    return [*agent, "--master_addr=127.0.0.1", f"--master_port={port}"], {}


def slurm(node, port):
    return [], {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "caopd",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": str(node),
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(node),
        "MASTER_PORT": str(port),
    }


@pytest.mark.parametrize(("launcher", "killed"), [(torchrun, 1), (slurm, 1), (slurm, 0)])
def test_a_killed_node_ends_the_run_with_a_message_and_the_same_command_resumes(nodes, launcher, killed):
    started = nodes.start(launcher, ckpt_path="last")
    nodes.wait_for_round(3)
    kill(started[killed])
    left = 1 - killed
    assert started[left].wait(SECONDS) == 1
    assert f"error: Stopped, since process {killed} of 2" in nodes.printed(left)
    assert "has ended without a word" in nodes.printed(left)
    if launcher is slurm:  # torchrun prints what its own agent met, too
        assert "Traceback" not in nodes.printed(left)
    for process in nodes.start(launcher, ckpt_path="last"):
        assert process.wait(SECONDS) == 0, nodes.printed(0)[-3000:]
    assert len(list(nodes.root.rglob("round_00039.jsonl"))) == 1
    assert "round 1/40:" not in nodes.printed(0)
    assert len(list((nodes.root / "lightning_logs").iterdir())) == 1


def test_sigterm_to_both_nodes_of_slurm_saves_and_the_same_command_goes_on(nodes):
    """As before a time limit or a preemption."""
    started = nodes.start(slurm, ckpt_path="last")
    nodes.wait_for_round(2)
    for process in started:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(SECONDS) for process in started] == [143, 143], nodes.printed(0)[-3000:]
    for process in nodes.start(slurm, ckpt_path="last"):
        assert process.wait(SECONDS) == 0, nodes.printed(0)[-3000:]
    assert len(list(nodes.root.rglob("round_00039.jsonl"))) == 1
