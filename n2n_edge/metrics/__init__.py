"""Figures with their provenance, costs, budgets and verdicts."""
