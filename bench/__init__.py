"""Benches: figures that anyone can measure again, each against a limit or a peer in the same run."""
