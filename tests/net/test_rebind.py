from __future__ import annotations

import pytest

from pbserv.errors import StartError
from pbserv.net.rebind import bind_beside
from pbserv.net.udp import PacketInfoSocket


def test_an_overlapping_address_for_us_and_nobody_else() -> None:
    old = PacketInfoSocket.bind("0.0.0.0", 0)
    port = old.name[1]
    new = bind_beside(old, "127.0.0.1", port)
    try:
        for address in ("0.0.0.0", "127.0.0.1", "127.0.0.2"):
            with pytest.raises(StartError, match="in use"):
                PacketInfoSocket.bind(address, port)
        old.send(b"x", "127.0.0.1", port)
        assert [one.data for one in new.receive()] == [b"x"]
        assert old.receive() == []
    finally:
        old.close()
        new.close()


def test_an_address_that_is_not_here() -> None:
    old = PacketInfoSocket.bind("127.0.0.1", 0)
    with pytest.raises(StartError, match="no address"):
        bind_beside(old, "192.0.2.1", old.name[1])
    with pytest.raises(StartError, match="in use"):
        PacketInfoSocket.bind("127.0.0.1", old.name[1])
    old.close()
