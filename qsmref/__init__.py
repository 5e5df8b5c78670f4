"""qsmref: susceptibility maps, and the differences between regions that they can be trusted for."""

__version__ = "0.1.0"
