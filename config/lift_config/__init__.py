"""Everything the processes agree on before they meet: settings, recipes, record shapes, key names, the
question framing and the phases of a timeline. Values and shapes only; no I/O beyond reading settings."""
