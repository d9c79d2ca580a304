"""Runs: from a teacher, data, devices and budgets to a student with proof."""
