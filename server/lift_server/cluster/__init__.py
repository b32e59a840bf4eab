"""`lift-serve up --ray`: engines and workers on the hosts of a Ray cluster, as many as are needed."""
