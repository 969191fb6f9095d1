"""`pcanel view`: serves a guest's screen by VNC on the loopback address; keys and pointer go to the guest.

The screen is read from the machine's memory, so the guest and the prompt notice nothing of it. Any VNC viewer of this
user shows it: vncviewer 127.0.0.1:5900. Ctrl-C ends it.
"""

import argparse
import time

from pcanel.commands.inside import add_choice, looked_at
from pcanel.commands.output import say
from pcanel.errors import EngineError, PcanelError
from pcanel.ram.guest import check_name

_PERIOD = 0.04  # seconds between two looks at the screen
_ASK = 1  # seconds between two questions where it is


def add_to(commands) -> None:
    parser = commands.add_parser("view", help="serve a guest's screen by VNC", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="the guest")
    parser.add_argument(
        "--port", type=int, default=5900, metavar="N", help="of the loopback address; 0: a free one (5900)"
    )
    add_choice(parser)
    parser.set_defaults(handler=_view)


def _view(options: argparse.Namespace) -> int:
    from pcanel.screen.source import Source, ask  # with numpy
    from pcanel.vnc.hand import Hand
    from pcanel.vnc.server import Server

    check_name(options.name)
    hand = Hand()
    with looked_at(options) as (evaluate, memory):
        source = Source(memory, ask(evaluate, options.name))
        has_mouse = evaluate(f"vms[{options.name!r}].pc.keyboard.mouse is not None")
        with Server(options.name, options.port, hand.key, hand.pointer) as server:
            shown = _Shown(server, source, lambda: ask(evaluate, options.name))
            print(f"{options.name}: vnc://127.0.0.1:{server.port}; Ctrl-C ends it", flush=True)
            try:
                while True:
                    server.serve(_PERIOD, shown.now)
                    _pass_on(evaluate, options.name, hand, has_mouse)
                    if server.clients:
                        shown.now()
            except KeyboardInterrupt:
                return 0


class _Shown:
    """Brings the screen to the server. ask(): where it is, which changes seldom."""

    def __init__(self, server, source, ask):
        self._server = server
        self._source = source
        self._ask = ask
        self._asked = time.monotonic()
        self._why = ""

    def now(self) -> None:
        """The screen as it is now; why one is not shown is printed once."""
        if time.monotonic() - self._asked >= _ASK:
            self._source.facts = self._ask()
            self._asked = time.monotonic()
        why = ""
        try:
            self._server.show(self._source.picture())
        except EngineError as error:
            why = str(error)
        if why and why != self._why:
            say(why)
        self._why = why


def _pass_on(evaluate, name: str, hand, has_mouse: bool) -> None:
    """Keys and movements to the guest."""
    codes, moves = hand.take()
    calls = [f"vms[{name!r}].keyboard.send({codes})"] if codes else []
    if has_mouse:
        calls += [f"vms[{name!r}].pc.keyboard.mouse.event(*{move})" for move in moves]
    for call in calls:
        try:
            evaluate(call)
        except PcanelError as error:
            say(f"lost: {error}")
