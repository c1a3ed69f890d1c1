"""Alpaca: ``adapter`` plans and asks, ``pages`` reads what comes."""
