"""Child processes: started, watched, restarted, stopped in order, found again after a kill."""
