"""Language models that answer as they are, without training: from a prompt, with examples if wanted.

FILE.yaml ─► `settings` ─► `answering.open_language_model` ─► a `Predict`

utterance ─► `examples` of training rows, `prompt` (a jinja file) ─► request ─► `local` or `server` ─► reply
"""
