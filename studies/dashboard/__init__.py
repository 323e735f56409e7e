"""A study in optuna-dashboard, with figures and scores as artifacts and notes filled in."""
