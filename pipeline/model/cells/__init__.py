"""The recurrent layers, one direction each, all with one contract.

    layer = LAYERS[config.kind](input_size, config)
    hidden, state = layer(x, lengths, state)

- x (B, T, D) float, 0 in the padding; lengths int64 (B) on the CPU, 1..T.
- hidden (B, T, layer.output_size); what it holds in the padding is masked by the stack.
- state: a tuple of tensors (B, ...) after each clip's last valid step; None starts a clip. T steps at once, in chunks
  or one by one give the same numbers.
- layer(x, lengths, state, **layer.draw(whole)): where a clip is read in pieces, one draw of dropout masks for all.
- layer.gates(x, lengths, state): values of the gates by name, (B, T, H) each; empty where a layer has none.
"""

from __future__ import annotations

from pipeline.config import RecurrentConfig
from pipeline.model.cells.conv import ConvLSTMLayer
from pipeline.model.cells.fused import FusedLayer
from pipeline.model.cells.layer_norm import LayerNormLSTMLayer
from pipeline.model.cells.lstm import LSTMLayer
from pipeline.model.cells.minimal import MinGRULayer, MinLSTMLayer
from pipeline.model.cells.mlstm import MLSTMLayer
from pipeline.model.cells.slstm import SLSTMLayer
from pipeline.model.cells.steps import Layer

LAYERS: dict[str, type[Layer]] = {
    "rnn": FusedLayer,
    "irnn": FusedLayer,
    "gru": FusedLayer,
    "lstm": FusedLayer,
    "peephole_lstm": LSTMLayer,
    "coupled_lstm": LSTMLayer,
    "layer_norm_lstm": LayerNormLSTMLayer,
    "conv_lstm": ConvLSTMLayer,
    "min_gru": MinGRULayer,
    "min_lstm": MinLSTMLayer,
    "slstm": SLSTMLayer,
    "mlstm": MLSTMLayer,
}


def build_layer(input_size: int, config: RecurrentConfig, grid: int = 1) -> Layer:
    """The layer of a configuration.

    Args:
        input_size: D.
        config: the recurrence, of a kind other than none.
        grid: cells per side of the feature map that a step's vector is; only conv_lstm reads it.
    """
    if config.kind == "lstm" and (config.zoneout or config.variational):
        return LSTMLayer(input_size, config)  # what torch.nn.LSTM has not
    if config.kind == "conv_lstm":
        return ConvLSTMLayer(input_size, config, grid)
    return LAYERS[config.kind](input_size, config)
