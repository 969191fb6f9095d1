"""The machine's memory, and a guest's, as the host reads it: past the prompt, at the speed of a copy."""
