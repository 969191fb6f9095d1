"""What guests do with their time, read from the monitor's memory while they run: records of exits, counters, plots."""
