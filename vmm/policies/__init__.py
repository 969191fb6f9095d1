"""Scripted exits: what `@vm.on(EVENT, **filter)` attaches.

`events` has the events, one file each; `event` and `filters` are their base classes. `policy` is one attached function,
its answers and its failures. `chain` and `link` put policies in front of the handlers of exits; `account` is what calls
cost and may take; `arming` sets the control bits that make exits happen. `stepper`, `monitortrap` and `trapflag` let
one instruction access a watched page.
"""
