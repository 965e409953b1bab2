"""Streams that never end: read, answered moment by moment, turned into events, shown."""
