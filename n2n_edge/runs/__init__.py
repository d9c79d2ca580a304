"""A run from settings to a shipped student: folder, preparation, final distillation, export, trials, documents."""
