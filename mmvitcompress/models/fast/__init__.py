"""Exact forms of other libraries' parts that cost less."""
