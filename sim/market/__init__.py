"""The traded market: sessions, universe, minutes and their versions, daily bars, quotes.

Everything here is a pure function of the configuration and of the instant asked; nothing remembers
who asked. ``model.Market`` is the door.
"""
