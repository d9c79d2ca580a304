"""Search for students: trials, their costs and scores, and what proposes them."""
