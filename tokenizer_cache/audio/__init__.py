"""The audio tokenizer: one that is trained on the corpus's sounds, or a published one."""
