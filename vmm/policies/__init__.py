"""Scripted exits: what `@vm.on(EVENT, **filter)` attaches.

`policy` runs the functions and catches what they do wrong, `filters` says which exits they
want, `arming` sets the control bits that make those exits happen, `answers` applies their
verdicts; `stepper`, `monitortrap` and `trapflag` let one instruction pass a watched page.
"""
