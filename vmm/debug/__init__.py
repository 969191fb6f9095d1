"""The debugger: breakpoints, watches, steps, and what a guest's state means in words. The guest does not see it.

`debugged` has a VM's methods; the rest is imported at its first use. `hidden`, `face` and `past` are breakpoints.
`pagewalk`, `descriptors` and `registers` decode what the CPU reads, `instructions` code, `chips` devices. `delivery`
and `cause` say why an exception was raised, `replay` finds which ones, `explain` and `hang` describe guests that died
or hang.
"""
