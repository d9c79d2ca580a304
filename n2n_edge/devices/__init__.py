"""Device profiles, their files and registry."""
