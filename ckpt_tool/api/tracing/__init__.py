"""Networks, inputs and plans for a trace, from what people name."""
