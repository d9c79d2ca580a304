"""Gate of a CI job: budget files, checks, verdicts and their writers."""
