"""A trained model as graphs that other programs run: the same numbers from PyTorch's own operations alone.

What makes the layers of `pipeline.model` quick (C code, backward passes by hand, packed sequences, chunks) cannot be
written into a file. Here every layer is its equations for one step, and a scan over them, which keeps batch and length
free where `torch.nn.LSTM` would be fixed to the length it was traced with.

    cells.py       the recurrent layers, a step each
    network.py     encoders, a step, a head, a whole clip
"""
