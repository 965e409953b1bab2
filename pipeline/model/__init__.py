"""From tensors to logits: encoder, recurrence, pooling, classifier, checkpoint.

Nothing here opens a video or knows a file format but its own checkpoint and the weights files.
"""
