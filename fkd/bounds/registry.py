"""The registry of certificates (apart from ``__init__`` so that certificate files can import it)."""

from fkd.core.registry import Registry

CERTIFICATES: Registry = Registry("certificate", "fkd.bounds")
