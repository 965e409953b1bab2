"""What a person looks at: numbers with their intervals, figures and tables. Numbers in, files out."""
