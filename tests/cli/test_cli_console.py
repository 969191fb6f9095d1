"""Consoles and their endpoints, with a socket in the engine's place."""

import os
import socket
import time

import pytest
from pcanel.errors import ConsoleTimeout, EngineError
from pcanel.hub import Hub


class Rig:
    """A hub with one console and the engine's side of its line."""

    def __init__(self, directory, exclusive):
        self.hub = Hub()
        self.endpoint = self.hub.open("line", directory / "line.log", exclusive)
        self.console = self.endpoint.console
        self.hub.start()
        self.engine = self.connect(self.endpoint.engine_port)

    def connect(self, port=None):
        line = socket.create_connection(("127.0.0.1", port or self.endpoint.client_port), timeout=5)
        line.settimeout(5)
        return line


@pytest.fixture
def rig(tmp_path):
    rigs = []

    def make(exclusive=False):
        rigs.append(Rig(tmp_path, exclusive))
        return rigs[-1]

    yield make
    for each in rigs:
        each.hub.stop()
        each.engine.close()


def received(line, count):
    data = b""
    while len(data) < count:
        data += line.recv(count - len(data))
    return data


def quiet(line):
    line.settimeout(0.3)
    try:
        with pytest.raises(TimeoutError):
            line.recv(1)
    finally:
        line.settimeout(5)


def test_expect_goes_on_behind_the_match(rig):
    r = rig()
    r.engine.sendall(b"one 1\r\none 2\r\n")
    assert r.console.expect(rb"one (\d)$", 5)[1] == b"1"
    assert r.console.expect(r"one (\d)", 5)[1] == b"2"
    assert r.console.wait("^one", 5).start() == 0


def test_expect_has_a_limit_and_shows_the_tail(rig):
    r = rig()
    r.engine.sendall(b"hello\x1b\r\n")
    with pytest.raises(ConsoleTimeout, match=r"(?s)'never' within 0.5 s.*hello\\x1b"):
        r.console.expect("never", 0.5)


def test_expect_ends_with_the_engine(rig):
    r = rig()
    r.engine.close()
    start = time.monotonic()
    with pytest.raises(EngineError, match="never showed"):
        r.console.expect("never", 30)
    assert time.monotonic() - start < 5


def test_the_log_has_every_byte(rig):
    r = rig()
    r.engine.sendall(bytes(range(256)))
    r.console.expect(b"\xff", 5)
    assert r.console.log.read_bytes() == bytes(range(256))


def test_typing_reaches_the_engine(rig):
    r = rig()
    r.console.send("print(1)\r")
    assert received(r.engine, 9) == b"print(1)\r"


def test_typing_before_the_engine_is_there(tmp_path):
    hub = Hub()
    endpoint = hub.open("early", tmp_path / "early.log")
    hub.start()
    endpoint.console.send(b"early")
    time.sleep(0.2)
    with socket.create_connection(("127.0.0.1", endpoint.engine_port), timeout=5) as engine:
        assert received(engine, 5) == b"early"
    hub.stop()


def test_clients_share_a_guests_console(rig):
    r = rig()
    one, two = r.connect(), r.connect()
    time.sleep(0.2)
    r.engine.sendall(b"both")
    assert received(one, 4) == received(two, 4) == b"both"
    two.sendall(b"typed")
    assert received(r.engine, 5) == b"typed"


def test_an_exclusive_console_serves_one_after_the_other(rig):
    r = rig(exclusive=True)
    onlooker = r.hub.look_on(r.endpoint)
    onlooker.settimeout(5)
    one, two = r.connect(), r.connect()
    time.sleep(0.2)
    r.engine.sendall(b"1")
    assert received(one, 1) == b"1"
    quiet(two)
    quiet(onlooker)
    one.close()
    time.sleep(0.2)
    r.engine.sendall(b"2")
    assert received(two, 1) == b"2"
    two.close()
    time.sleep(0.2)
    r.engine.sendall(b"3")
    assert received(onlooker, 1) == b"3"


def test_pty(rig):
    r = rig()
    for round_trip in (b"first", b"again"):
        line = os.open(r.endpoint.pty, os.O_RDWR | os.O_NOCTTY)
        time.sleep(0.6)
        os.write(line, round_trip)
        assert received(r.engine, 5) == round_trip
        r.engine.sendall(b"shown")
        assert os.read(line, 5) == b"shown"
        os.close(line)
        time.sleep(0.6)


def test_a_client_that_does_not_read_holds_up_nobody(rig):
    r = rig()
    r.connect()
    data = b"x" * (1 << 20)
    for _ in range(24):
        r.engine.sendall(data)
    r.engine.sendall(b"\r\nend")
    r.console.expect("^end", 20)
