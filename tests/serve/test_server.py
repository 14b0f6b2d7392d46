"""Where the page is: addresses that can be had, and those that cannot."""

import socket

import pytest

from qvit.errors import ConfigError
from qvit.serve.server import address_of, listen


def test_any_free_port() -> None:
    with listen("127.0.0.1", 0) as one, listen("localhost", 0) as other:
        assert one.getsockname()[1] not in (0, other.getsockname()[1])
        assert address_of(one) == f"http://127.0.0.1:{one.getsockname()[1]}"


def test_an_address_of_the_newer_kind_is_written_in_brackets() -> None:
    try:
        listening = listen("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    with listening:
        assert address_of(listening) == f"http://[::1]:{listening.getsockname()[1]}"


def test_a_port_that_is_in_use() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        said = f"Cannot listen on port {port} of 127.0.0.1: Address already in use. Choose another with --port; 0 takes"
        with pytest.raises(ConfigError, match=said):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "192.0.2.7"])
def test_an_address_that_is_none_of_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, *rest: object, **more: object) -> object:
        if name.endswith("invalid"):
            raise socket.gaierror(-2, "Name or service not known")
        return real(name, *rest, **more)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # which would ask the network
    with pytest.raises(
        ConfigError, match=r"Expected an address of this machine|Cannot listen on port 0 of 192\.0\.2\.7"
    ):
        listen(host, 0)
