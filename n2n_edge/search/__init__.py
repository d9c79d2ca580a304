"""Search for a student: policies, reward, the two stages, and the journal of a run."""
