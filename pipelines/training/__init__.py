"""Training one model: the loop, its state and checkpoints, on one worker or many; neither Ray nor MLflow."""
