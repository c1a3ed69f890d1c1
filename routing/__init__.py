"""Decides who is asked: registry, health, breaker, budgets and policy."""
