"""What is used as it is: each file is a page, and needs nothing but the words of the prompt."""
