"""The child process: ``python -m caopd.vllm_host FD`` answers calls of a VLLMHost's methods over a pipe."""

from __future__ import annotations

import shutil
import sys
from multiprocessing.connection import Connection

from caopd.errors import CaopdError, RolloutError
from caopd.vllm_host.host import VLLMHost


def serve(connection: Connection) -> None:
    """Answer until ``close`` is called or the other side has gone.

    Args:
        connection: Receives (method, arguments) and sends (result, error).
    """
    host = VLLMHost()
    method = ""
    while method != "close":
        try:
            method, arguments = connection.recv()
        except EOFError:  # the training process has ended without a word: nobody else cleans up
            shutil.rmtree(host.directory, ignore_errors=True)
            break
        try:
            answer: tuple[object, CaopdError | None] = (getattr(host, method)(*arguments), None)
        except CaopdError as error:
            answer = (None, error)
        except Exception as error:  # the other side must learn of it, whatever it is
            answer = (None, RolloutError(f"vLLM failed in `{method}`: {type(error).__name__}: {error}"))
        try:
            connection.send(answer)
        except BrokenPipeError:
            break
    host.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
