"""Recognising what the outputs of a model file mean."""
