"""Where the time of a training or of a classification goes, and how fast this machine could be at best."""
