"""Faults: hostile files, bad networks, interruptions; what the program makes of each."""
