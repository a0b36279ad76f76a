"""What `dvc.yaml` calls, one file per stage."""
