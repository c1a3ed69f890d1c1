"""Decides who answers a call: policy, health, the fleet's breaker, rolling budgets."""
