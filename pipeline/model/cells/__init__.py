"""The recurrent layers, one direction each, all with one contract.

    layer = LAYERS[config.kind](input_size, config)
    hidden, state = layer(x, lengths, state)

- x (B, T, D) float, 0 in the padding; lengths int64 (B) on the CPU, 1..T.
- hidden (B, T, layer.output_size); what it holds in the padding is masked by the stack.
- state: a tuple of tensors (B, ...) after each clip's last valid step; None starts a clip. T steps at once, in chunks
  or one by one give the same numbers.
- layer.gates(x, lengths, state): values of the gates by name, (B, T, H) each; empty where a layer has none.
"""
