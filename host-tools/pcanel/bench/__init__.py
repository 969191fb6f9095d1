"""The bench: what an exit costs here, natively and under KVM, in the same Bochs (docs/benchmarks.md)."""
