"""Long recordings: read once from beginning to end, answered moment by moment, turned into events and files."""
