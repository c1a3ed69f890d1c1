"""Remembers: migrations, queries and one small module per table family."""
