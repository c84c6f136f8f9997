"""Every finding on well-kept applications, judged, and what compares a run with it."""
