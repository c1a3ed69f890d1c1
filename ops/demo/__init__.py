"""`ops demo`: a simulated trading day with faults, collected for real, checked and reported."""
