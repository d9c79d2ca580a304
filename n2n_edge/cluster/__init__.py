"""Evaluations on Ray: its workers on this machine or on a cluster. Imported only where that is asked for."""
