"""Questions: evaluation, search, what-if, validation, reports, the command line."""
