"""One rank's worker: the step scheduler, what drives it, and what may be said to a run."""
