"""Many trainings that differ in a few options: which to try next, each in a process, what came of them."""
