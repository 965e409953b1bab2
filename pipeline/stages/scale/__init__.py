"""Classification beyond one machine, on Ray Data: `--engine ray`."""
