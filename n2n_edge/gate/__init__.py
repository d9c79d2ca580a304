"""Gate of a CI job: checks, budget files, and writers (terminal, JSON, JUnit, Markdown, GitHub, GitLab)."""
