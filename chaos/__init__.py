"""Seeded faults against a whole running gapless, judged by the simulator's independent checker."""
