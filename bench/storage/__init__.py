"""The storage bench: point-in-time tables against what PostgreSQL can do at best."""
