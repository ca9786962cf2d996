"""Whether the hub can be reached: its client asks again and again for a minute before it says no."""

from __future__ import annotations

import socket
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies

_SECONDS = 10


@cache
def hub_answers() -> bool:
    """Return whether the hub can be reached, asked once in a process.

    Behind a proxy, and where ``HF_HUB_OFFLINE`` is set, nothing is asked, and the client finds out.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode() or getproxies():
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_SECONDS).close()
    except OSError:
        return False
    return True
