"""`lift-serve up`: every process of one machine, started, watched, restarted and stopped together."""
