"""The registry of attacks on a pair (apart from ``__init__`` so that attack files can import it)."""

from fkd.core.registry import Registry

ATTACKS: Registry = Registry("attack", "fkd.attacks")
