"""Streams of other machines: many share the calls of a model; each can move to another server."""
