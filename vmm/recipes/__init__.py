"""Ready-made policies: each file is a page, and uses only the words of the prompt."""
