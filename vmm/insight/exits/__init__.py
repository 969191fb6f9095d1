"""Where the time of exits goes: measures, records, and their words. docs/tracing.md."""
