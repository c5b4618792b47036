"""The settings of sources, destinations and bindings as text: parsed, compared with what is set up, and applied.

`apply`, `export` and the `add` and `update` commands share it, so that a setting is described once (`fields`).
"""
