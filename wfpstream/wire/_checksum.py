"""The internet checksum (RFC 1071), fast enough for every segment of a big capture.

Knows bytes only: what is summed up (headers, pseudo-headers) is the caller's business.

Modulo 65,535 a whole number equals the sum of its 16-bit digits, so CPython's long integers do the adding.
Measured on 1,460 bytes (CPython 3.11): `int.from_bytes(..., "little")` and two folds 2.2 us, the same without
folds 2.9 us, big-endian 3.1 us (its conversion has no fast path), summing `struct` or `array` words 17-35 us.
"""

from __future__ import annotations

# Halving a long number by shift and mask is cheaper than dividing all of it by 65,535. The borders are multiples
# of 16 bits (the sum's digits) and of 30 (CPython's digits, so that a shift moves whole ones).
_FOLD_FROM = 720
_FOLD_1, _FOLD_2 = 5_760, 2_880
_MASK_1, _MASK_2 = (1 << _FOLD_1) - 1, (1 << _FOLD_2) - 1


def word_sum(data: bytes | memoryview) -> int:
    """The ones' complement sum of `data` as big-endian 16-bit words, 0 to 65,535; 0 only if all bytes are 0.

    An odd last byte counts as the upper half of a word, as RFC 1071 says. Sums may be added as plain numbers.
    """
    number = int.from_bytes(data, "little")
    if not number:
        return 0
    if len(data) > _FOLD_FROM:
        number = (number >> _FOLD_1) + (number & _MASK_1)
        number = (number >> _FOLD_2) + (number & _MASK_2)
    # Times 256 swaps the two bytes of each word, modulo 65,535: little-endian words become big-endian ones.
    return (number % 65_535 << 8) % 65_535 or 65_535


def internet_checksum(*parts: bytes | memoryview) -> int:
    """The checksum over `parts` as if joined: what goes into the header field, whose own bytes are 0 meanwhile.

    Over a packet whose field is filled in, the answer is 0 if the checksum is right.
    """
    total = 0
    is_odd = False
    for part in parts:
        # A part that starts in the middle of a word has every byte in the other half of its word.
        total += word_sum(part) << 8 if is_odd else word_sum(part)
        is_odd ^= len(part) & 1 == 1
    return -total % 65_535 if total else 65_535
