"""A web server for the page, on one address. Needs uvicorn."""

import socket

import uvicorn
from starlette.applications import Starlette

from qvit.errors import ConfigError

BACKLOG = 32  # connections that wait to be taken


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; raises ConfigError if it is in use, or none of this machine's."""
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"Expected an address of this machine, got --host {host}. Leave it out.") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        why = error.strerror or str(error)
        raise ConfigError(
            f"Cannot listen on port {port} of {host}: {why}. Choose another with --port; 0 takes any that is free."
        ) from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Return what to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server(app: Starlette) -> uvicorn.Server:
    """Return a server that logs nothing of what was asked; its `run(sockets=[…])` ends by Ctrl-C or a signal."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
    )
    return uvicorn.Server(config)
