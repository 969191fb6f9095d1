"""The monitor. README.md has what each folder is for; here is what belongs to none of them.

The machine that a guest is: `vm` (its life is `life`), `processors`, `pc` and what is plugged into it (`expansion`,
`firmware`, `variables`), `bus`, `apic_bus`, `physical` (its memory), `bda`, `description`.
The user's side: `monitor`, `machines`, `boot`, `console`, `terminal`, `host_uarts`, `screen`, `keyboard`, `pointer`,
`journal`.
What all of it uses: `verdict`, `fault`, `tally`, `backoff`, `machine_check`, `gone`.
"""
