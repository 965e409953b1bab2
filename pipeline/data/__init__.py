"""From files to batches: what clips there are, what they hold, who learns from which, and the demo clips."""
