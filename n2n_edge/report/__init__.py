"""Pages, pictures and model card of a run or a bench."""
