"""A comparison in a process of its own: request, job, worker."""
