"""Links and shared memory in guest files: what they become, and what is refused."""

import socket

import pytest
from pcanel.engines.base import Machine
from pcanel.errors import InputError
from pcanel.guest.file import load
from pcanel.guest.set import alone, assign_lines, forwards, load_all

HEAD = 'memory = "16M"\nprotocol = "multiboot"\nkernel = "kernel"\n'


@pytest.fixture
def write(tmp_path):
    (tmp_path / "kernel").write_bytes(b"k" * 100)

    def make(tail, name="some"):
        path = tmp_path / f"{name}.toml"
        path.write_text(HEAD + tail)
        return path

    return make


def link(uart="com2", to="other:com2"):
    return f'[[link]]\nuart = "{uart}"\nto = "{to}"\n'


def ordered(tail):
    """TOML wants keys in front of tables."""
    tables, _, keys = tail.partition("console")
    return (f"console{keys}" if keys else "") + tables


def shared(**keys):
    keys = {"name": '"board"', "size": '"64K"', **keys}
    return "[[shared]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)


def test_links(write):
    assert load(write(link() + link("com1", "x.y:com4"))).config["links"] == [
        {"uart": "com2", "to": "other:com2"}, {"uart": "com1", "to": "x.y:com4"},
    ]  # fmt: skip


def test_shared_memory(write):
    second = shared(name='"b"', size=4096, access='"ro"', gpa=0xC0000000, gsi=16, cpl=3)
    assert load(write(shared() + second)).config["shared"] == [
        {"name": "board", "size": 65536, "access": "rw", "gpa": None, "gsi": None, "cpl": 0},
        {"name": "b", "size": 4096, "access": "ro", "gpa": 0xC0000000, "gsi": 16, "cpl": 3},
    ]


@pytest.mark.parametrize(
    "tail, words",
    [
        (link("com5"), ("link", "com5")),
        (link(to="other"), ("link", "rtos:com2")),
        (link(to="other:com9"), ("link", "com9")),
        (link(to="some:com2"), ("link[0].to", "itself")),
        (link(to="no name:com2"), ("link[0].to", "such as")),
        (link(to="-:com2"), ("link[0].to", "no guest's name")),
        ('[[link]]\nuart = "com2"\nto = 5\n', ("link[0].to", "such as")),
        ('[[link]]\nuart = "com2"\n', ("link", "uart and to")),
        ("link = 3\n", ("link", "3")),
        (shared(name=None), ("shared[0].name", "1 to 16")),
        (shared(name='"seventeen_letters"'), ("shared[0].name", "1 to 16")),
        (shared(size=None), ("shared[0].size", "multiple of 4096")),
        (shared(size=0), ("shared[0].size", "multiple of 4096")),
        (shared(size=-4096), ("shared[0].size", "multiple of 4096")),
        (shared(size=100), ("shared[0].size", "multiple of 4096")),
        (shared(size='"800M"'), ("shared[0]:", "would lie at 0xd0000000 and end beyond 0xfec00000")),
        ("shared = [3]\n", ("shared[0]", "must be a table")),
        (shared(size='"64Q"'), ("shared[0].size", "64Q")),
        (shared(access='"wo"'), ("shared[0].access", "rw, ro")),
        (shared(gpa=0x1000), ("shared[0].gpa", "0xc0000000")),
        (shared(gpa=0xC0000001), ("shared[0].gpa", "multiple")),
        (shared(gpa=0xFEBFF000), ("shared[0].gpa", "0xfebf0000")),
        (shared(gsi=4), ("shared[0].gsi", "must be one of 5")),
        (shared(colour=1), ("shared[0].colour", "unknown key")),
        (shared() + shared(), ("shared[1].name", "twice")),
        (shared() + shared(name='"b"', gpa=0xD000F000), ("shared[1].gpa", "b at 0xd000f000 overlaps board")),
        (shared(gpa=0xE0000000) + shared(name='"b"', gpa=0xE0001000), ("shared[1].gpa", "overlaps board")),
        (shared(gpa=0xFEBF0000) + shared(name='"b"'), ("shared[1]:", "b would lie at 0xfec00000")),
    ],
)
def test_refused(write, tail, words):
    path = write(tail)
    with pytest.raises(InputError) as info:
        load(path)
    assert str(info.value).startswith(f"{path}: ")
    for word in words:
        assert word in str(info.value)


def test_either_file_or_both_may_have_the_cable(write):
    both = [write(link(), "some"), write(link(to="some:com2"), "other")]
    assert len(load_all(both, 1024)) == 2


def test_a_uart_has_one_cable(write):
    files = [write(link(), "some"), write(link("com3", "other:com2"), "third"), write("", "other")]
    with pytest.raises(InputError, match="other:com2 is linked to some:com2 already"):
        load_all(files, 1024)


@pytest.mark.parametrize(
    "tails",
    [
        {"a": link("com1", "b:com2"), "b": "", "c": ""},
        {"a": "", "b": link("com2", "a:com1"), "c": ""},
        {"a": link("com1", "b:com2"), "b": link("com2", "a:com1"), "c": ""},
        {"a": link("com1", "b:com2") + 'console = "none"\n', "b": "", "c": ""},
    ],
)
def test_a_linked_com1_has_no_line(write, tails):
    """Whoever's file lays the cable."""
    guests = load_all([write(ordered(tail), name) for name, tail in tails.items()], 1024)
    assert assign_lines(guests) == {"com2": "b", "com3": "c"}
    assert guests[0].config["console"] in (None, "none")


@pytest.mark.parametrize("tails", [{"a": link("com1", "b:com2")}, {"a": "", "b": link("com2", "a:com1")}])
def test_a_linked_com1_cannot_ask_for_a_line(write, tails):
    tails["a"] += 'console = "com3"\n'
    guests = load_all([write(ordered(tail), name) for name, tail in tails.items()], 1024)
    with pytest.raises(InputError, match=r"a\.toml: console: COM1 is linked to b:com2 and no console$"):
        assign_lines(guests)


def test_both_sides_of_a_window_have_one_size(write):
    with pytest.raises(InputError, match="another size"):
        load_all([write(shared(), "some"), write(shared(size=4096), "other")], 1024)


def test_a_window_counts_once_as_memory(write):
    files = [write(shared(size='"700M"'), "some"), write(shared(size='"700M"'), "other")]
    assert len(load_all(files, 1024)) == 2
    with pytest.raises(InputError, match="do not fit"):
        load_all([*files, write(shared(name='"b"', size='"700M"'), "third")], 1024)


def net(**keys):
    return "".join(f"[[net]]\n{''.join(f'{key} = {value!r}{chr(10)}' for key, value in keys.items())}")


@pytest.mark.parametrize(
    "text, why",
    [
        ("[[net]]\n", r"net\[0\]\.switch: must be the name of a switch, not None"),
        (net(switch="a b"), r"net\[0\]\.switch: must be the name of a switch, not 'a b'"),
        (net(switch="lan", speed=3), r"net\[0\]\.speed: unknown key; there are switch, mac"),
        (net(switch="lan", mac="52:54"), r"net\[0\]\.mac: must be an address such as"),
        (net(switch="lan", mac="01:00:5e:00:00:01"), r"net\[0\]\.mac: 01:00:5e:00:00:01 is no address of one"),
        (2 * net(switch="lan", mac="02:00:00:00:00:01"), r"net\[1\]\.mac: that of \[0\] at the same switch"),
        (net(switch="lan", forward=["tcp:2222:22"]), r"net\[0\]\.forward: only the switch 'host' leads to the host"),
        (net(switch="host", forward="tcp:2222:22"), r"net\[0\]\.forward: must be a list of strings such as"),
        (net(switch="host", forward=["icmp:1:2"]), r"net\[0\]\.forward: must be such as \"tcp:2222:22\" or"),
        (net(switch="host", forward=["tcp:2222:0"]), r"tcp:2222:0: a port is a number from 1 to 65535"),
        (net(switch="host", forward=["tcp:2222:10.0.3.4:22"]), r"the guest's address is one of 10.0.2.4 to 10.0.2.254"),
        (net(switch="host", forward=2 * ["tcp:2222:22"]), r"tcp port 2222 of the host is forwarded already"),
        (9 * net(switch="lan"), r"net\[8\]: a guest has 8 network interfaces at most"),
    ],
)
def test_what_no_interface_can_be(write, text, why):
    with pytest.raises(InputError, match=why):
        load_all([write(text, "a")], 1024)


def test_forwards_of_several_guests_lead_to_several_addresses(write):
    def host(*rules):
        return net(switch="host", forward=list(rules))

    with pytest.raises(InputError, match=r"b\.toml: net\[0\]\.forward: 10\.0\.2\.15 is the address of .*a\.toml, too"):
        load_all([write(host("tcp:2222:22"), "a"), write(host("tcp:2223:22"), "b")], 1024)
    files = [write(host("tcp:2222:22", "udp:53:53"), "a"), write(host("tcp:2223:10.0.2.16:22"), "b")]
    assert forwards(load_all(files, 1024)) == [
        ("tcp", 2222, "10.0.2.15", 22),
        ("udp", 53, "10.0.2.15", 53),
        ("tcp", 2223, "10.0.2.16", 22),
    ]


def test_a_port_that_is_taken_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        machine = Machine(tmp_path, tmp_path, 64, forwards=[("tcp", port, "10.0.2.15", 22)])
        with pytest.raises(InputError, match=f"^forward: tcp port {port} of the host: Address already in use"):
            machine.check_ports()
    machine.check_ports()


def test_a_switch_with_one_interface_is_told_of(write):
    text = net(switch="lan") + net(switch="lna") + net(switch="host")
    guests = load_all([write(text, "a"), write(net(switch="lan"), "b")], 1024)
    (line,) = alone(guests)
    assert line.endswith("a.toml: net[1].switch: nothing else is at the switch lna")


def test_addresses_differ_at_a_switch(write):
    same = net(switch="lan", mac="02:00:00:00:00:01")
    with pytest.raises(InputError, match=r"b\.toml: net\[0\]\.mac: 02:00:00:00:00:01 is the address of .*a\.toml too$"):
        load_all([write(same, "a"), write(same, "b")], 1024)
    assert len(load_all([write(same, "a"), write(same.replace("lan", "dmz"), "b")], 1024)) == 2
    assert len(load_all([write(net(switch="lan"), name) for name in ("a", "b", "c")], 1024)) == 3
