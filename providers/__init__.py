"""Speaks to the world: one module per provider, all under the contract in ``base``."""
