"""MLflow, and nothing else in the project knows it: runs, the store they are kept in, and its web page."""
