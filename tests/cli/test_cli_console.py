"""Consoles and their endpoints, with a socket in the engine's place; who gets to them."""

import os
import socket
import stat
import struct
import time

import pytest
from pcanel import local
from pcanel.errors import ConsoleTimeout, EngineError
from pcanel.hub import Hub


class Rig:
    """A hub with one console and the engine's side of its line: a descriptor, or a port that it connects to."""

    def __init__(self, directory, exclusive, port):
        self.hub = Hub()
        self.endpoint = self.hub.open("line", directory / "line.log", exclusive)
        self.console = self.endpoint.console
        if port:
            number = self.endpoint.listen()
            self.hub.start()
            self.engine = socket.create_connection(("127.0.0.1", number), timeout=5)
        else:
            self.engine = self.endpoint.pair()
            self.hub.start()
        self.engine.settimeout(5)

    def connect(self):
        line = local.connect(self.endpoint.path)
        line.settimeout(5)
        return line


@pytest.fixture
def rig(tmp_path):
    rigs = []

    def make(exclusive=False, port=False):
        rigs.append(Rig(tmp_path, exclusive, port))
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


@pytest.mark.parametrize("port", [False, True])
def test_the_log_has_every_byte(rig, port):
    r = rig(port=port)
    r.engine.sendall(bytes(range(256)))
    r.console.expect(b"\xff", 5)
    assert r.console.log.read_bytes() == bytes(range(256))


@pytest.mark.parametrize("port", [False, True])
def test_typing_reaches_the_engine(rig, port):
    r = rig(port=port)
    r.console.send("print(1)\r")
    assert received(r.engine, 9) == b"print(1)\r"


def test_typing_before_the_engine_is_there(tmp_path):
    hub = Hub()
    endpoint = hub.open("early", tmp_path / "early.log")
    port = endpoint.listen()
    hub.start()
    endpoint.console.send(b"early")
    time.sleep(0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as engine:
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


# Nobody but this user reaches a console.


def test_the_modes_of_socket_and_pty(rig):
    r = rig()
    for path in (r.endpoint.path, r.endpoint.pty):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_path_longer_than_the_kernel_takes(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with local.listen(deep / "line.sock") as listener, local.connect(deep / "line.sock") as line:
        assert local.peer_uid(line) == local.peer_uid(listener.accept()[0]) == os.geteuid()


def test_whose_process_has_the_other_end_of_a_port():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as line,
    ):
        assert local.tcp_peer_uid(line) == os.geteuid()


@pytest.mark.parametrize("stranger", [None, 12345])
def test_a_stranger_at_the_engines_port_is_turned_away(tmp_path, monkeypatch, stranger):
    whose = [stranger, os.geteuid()]
    monkeypatch.setattr(local, "tcp_peer_uid", lambda line: whose.pop(0))  # a stand-in: the test has one user
    hub = Hub()
    endpoint = hub.open("line", tmp_path / "line.log")
    port = endpoint.listen()
    hub.start()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        assert line.recv(1) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as engine:
        engine.sendall(b"the engine\n")
        endpoint.console.expect("the engine", 5)
    hub.stop()


def test_whoever_has_gone_again_does_no_harm(tmp_path):
    hub = Hub()
    endpoint = hub.open("line", tmp_path / "line.log")
    port = endpoint.listen()
    for gone in (socket.create_connection(("127.0.0.1", port), timeout=5), local.connect(endpoint.path)):
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        gone.close()
    hub.start()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as engine:
        engine.sendall(b"the engine\n")
        endpoint.console.expect("the engine", 5)
    assert hub.failure is None
    hub.stop()


def test_a_stranger_at_the_clients_socket_is_turned_away(rig, monkeypatch):
    r = rig()
    monkeypatch.setattr(local, "peer_uid", lambda line: 12345)
    assert r.connect().recv(1) == b""
    monkeypatch.undo()
    line = r.connect()
    line.sendall(b"typed")
    assert received(r.engine, 5) == b"typed"


def test_bytes_from_a_port_are_acknowledged_at_once(rig):
    """Bochs waits for that before it sends the next one."""
    r = rig(port=True)
    r.engine.sendall(b"x")
    r.console.expect("x", 5)
    assert r.endpoint._engine.file.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


# What goes wrong in the hub's thread is told, and the rest goes on.


class Full:
    """A log on a full disk: takes some bytes, then none."""

    def __init__(self, room):
        self.taken = b""
        self._room = room

    def write(self, data):
        taken = bytes(data[: self._room - len(self.taken)])
        if not taken:
            raise OSError(28, "No space left on device")
        self.taken += taken
        return len(taken)

    def close(self):
        pass


def test_a_full_disk_ends_the_log_and_nothing_else(rig):
    r = rig()
    r.console._log.close()
    r.console._log = full = Full(3)
    r.engine.sendall(b"before and after\n")
    r.console.expect("before and after$", 5)
    assert full.taken == b"bef"
    assert r.console.trouble == f"{r.console.log}: No space left on device; the run goes on without this log"
    line = r.connect()
    time.sleep(0.2)
    r.engine.sendall(b"more")
    assert received(line, 4) == b"more"
    r.console.send(b"typed")
    assert received(r.engine, 5) == b"typed"


def test_a_fault_of_the_hub_ends_every_wait(rig, monkeypatch, capfd):
    r = rig()
    monkeypatch.setattr(r.endpoint, "look_at_pty", lambda: 1 / 0)
    with pytest.raises(EngineError, match="the consoles have failed: ZeroDivisionError"):
        r.console.expect("never", 30)
    assert r.hub.failure == "the consoles have failed: ZeroDivisionError: division by zero"
    assert "look_at_pty" in capfd.readouterr().err
    r.console.send(b"to nobody")
