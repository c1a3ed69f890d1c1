"""Decides who: sources, policy, health, the fleet's breaker, rolling budgets, retries."""
