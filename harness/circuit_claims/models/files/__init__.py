"""Files of weights: GGUF and safetensors read strictly, converted once, every tensor held against its checksum.

Read first: `manifest` (what is written down of each file) and `tensors` (reading them back). May import the errors of
`models` and `models.architectures`.
"""
