"""The child process: ``python -m caopd.vllm_host FD`` answers calls of a VLLMHost's methods over a pipe."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from caopd.errors import CaopdError
from caopd.vllm_host.host import VLLMHost


def serve(connection: Connection) -> None:
    """Answer calls until ``close`` is called or the other side has gone.

    An error that is not one of caopd's ends this process: vLLM may be broken, and the other side starts another one.

    Args:
        connection: Receives (method, arguments) and sends (result, error), before them how far a call has come.
    """
    host = VLLMHost(connection.send)
    method = ""
    try:
        while method != "close":
            method, arguments = connection.recv()
            try:
                answer: tuple[object, CaopdError | None] = (getattr(host, method)(*arguments), None)
            except CaopdError as error:
                answer = (None, error)
            connection.send(answer)
    except (EOFError, OSError):  # the training process has ended without closing; a guard removes the files
        pass
    finally:
        host.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
