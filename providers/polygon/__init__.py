"""Polygon, since 2025 Massive: its v2 aggregates and snapshots."""
