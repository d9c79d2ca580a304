"""Proposers of a search: what suggests the next trials."""
