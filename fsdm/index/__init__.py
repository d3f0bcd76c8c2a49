"""Indexes: the keys of each chunk and of all of them, made of the chunks' files and found again."""
