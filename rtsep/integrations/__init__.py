"""Adapters for voice frameworks, one module each, over the public interface of rtsep."""
