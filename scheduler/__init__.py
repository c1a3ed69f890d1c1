"""Decides when: cadence, sweep, gap pass, dispatch and the leader's lease."""
