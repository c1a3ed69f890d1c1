"""PostgreSQL and Valkey servers on this machine, from installed wheels: started, found, stopped."""
