"""What travels with every registered model: relative imports only, neither `data` nor `models` by name."""
