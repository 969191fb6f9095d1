"""Ready-made policies: each file is short and uses only what the prompt offers."""
