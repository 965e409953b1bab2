"""A trained model behind a server: what it answers, what it may read, what a request may cost."""
