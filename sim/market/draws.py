"""Random numbers that are functions of what they are drawn for, never of how often someone drew."""

from hashlib import blake2b

_MASK = (1 << 64) - 1


def key_of(*parts: object) -> int:
    """A 64-bit key from anything with a stable text."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def mix(key: int, number: int) -> int:
    """64 well-mixed bits from a key and a number (splitmix64's finaliser, Steele, Lea, Flood 2014)."""
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(key: int, number: int) -> float:
    """A number in [0, 1)."""
    return (mix(key, number) >> 11) * 2.0**-53


def wave(key: int, x: float) -> float:
    """Smooth noise in [-1, 1] over the real line, with a knot at every whole number."""
    whole = int(x // 1)
    part = x - whole
    left, right = uniform(key, whole), uniform(key, whole + 1)
    blend = part * part * (3.0 - 2.0 * part)
    return 2.0 * (left + (right - left) * blend) - 1.0
