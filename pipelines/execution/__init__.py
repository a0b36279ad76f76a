"""Settings become a job, and the job runs: on this machine, on a joined cluster, or through a job server."""
