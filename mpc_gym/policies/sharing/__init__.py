"""Policies in folders that others may load: JSON and safetensors, from which no code is run."""
