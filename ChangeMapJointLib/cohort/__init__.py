"""Many pairs on a Dask cluster, and the time points of one patient: resumable, one folder per pair, one table."""
