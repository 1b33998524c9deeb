"""Attacks from below: witnesses of a confidence gap or of a disagreement inside the ball."""

from typing import Any

from fkd.attacks.base import PairAttack, PairAttackConfig, PairAttackResult
from fkd.attacks.registry import ATTACKS

#: The attack where none is named.
DEFAULT_ATTACK = "search"


def attack_config(values: dict[str, Any] | PairAttackConfig) -> PairAttackConfig:
    """The typed configuration of the attack that ``values["name"]`` names (default: `DEFAULT_ATTACK`).

    Raises:
        ConfigError: unknown attack, unknown setting, or a value outside its range.
    """
    if isinstance(values, PairAttackConfig):
        return values
    return ATTACKS.get(values.get("name", DEFAULT_ATTACK)).Config.parse(values)


def make_attack(config: PairAttackConfig) -> PairAttack:
    """The attack that ``config`` names.

    Raises:
        ConfigError: there is no attack of that name.
    """
    return ATTACKS.get(config.name)(config)


__all__ = [
    "ATTACKS",
    "DEFAULT_ATTACK",
    "PairAttack",
    "PairAttackConfig",
    "PairAttackResult",
    "attack_config",
    "make_attack",
]
