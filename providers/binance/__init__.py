"""Binance spot: its klines and book tickers."""
