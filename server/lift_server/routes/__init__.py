"""HTTP: one file per resource. A route reads the request, calls the domain, shapes the answer."""
