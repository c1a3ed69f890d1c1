"""The routing bench: failover, budgets, outages and what a routed call costs, against the simulator."""
