"""Scripted exits: what `@vm.on(EVENT, **filter)` attaches.

`events` has the events, one file each, `event` and `filters` what they are made of; `policy` is one attached function,
what its answers do and what it does wrong; `chain` and `link` put policies in front of the handlers of exits, `account`
is what calls cost and may take, `arming` sets the bits that make exits happen; `stepper`, `monitortrap` and `trapflag`
let one instruction pass a watched page.
"""
