"""The random stream, in NumPy: what every backend's ``random`` must reproduce bit for bit.

Bits. Word ``k`` (uint64) of ``stream`` under ``seed`` is output ``k % 4`` of Philox4x64-10
(Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) at
counter ``(k // 4 + 1, 0, stream, 0)`` with key ``(seed, 0)``. ``half[i]`` is the i-th uint32 of
those words in little-endian order: word i // 2, its low half first.

Values of element i:

=========  ========================================================================
bits       int64: word i
uniform    float32 ``(half[i] >> 8) * 2**-24``, float16 ``(half[i] >> 21) * 2**-11``,
           bfloat16 ``(half[i] >> 24) * 2**-8``, float64 ``(word[i] >> 11) * 2**-53``
normal     Box and Muller (Ann. Math. Stat. 29, 1958) on the pair (2j, 2j+1), j = i // 2:
           ``r = sqrt(-2 ln u)``, element 2j is ``r cos 2 pi v``, 2j+1 is ``r sin 2 pi v``;
           half types: the float32 value, rounded
=========  ========================================================================

``ln``, ``cos``, ``sin`` and (in float32) ``sqrt`` are written here with additions and
multiplications alone, each rounded once, because those are the operations that IEEE 754
fixes to the bit on every device; a library's ``log`` or a fused multiply-add would differ.
A port must keep the order of operations and switch contraction off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_BLOCK = 1 << 15  # words at a time, so that temporaries stay in cache

# (ln(1+f) - f) / f**2 on [sqrt(1/2)-1, sqrt(2)-1]; sin(2 pi r)/r and (cos(2 pi r)-1)/r**2 as
# polynomials in r**2 on [0, 1/64]; Chebyshev interpolation, lowest power first. float32.
LOG32 = (-0.4999999766185051, 0.3333332145910888, -0.250007722069839, 0.20001968901094888,
         -0.16627600037669282, 0.14189000304702856, -0.13101633825793704, 0.12821749385531475,
         -0.07866667593189047)  # fmt: skip
SIN32 = (6.283185287840109, -41.34166260181892, 81.5925482067345, -75.40184030998498)
COS32 = (-19.739208790001758, 64.93936906782008, -85.4488228879476, 59.42422535791993)
# Taylor series of sin(2 pi r)/r and (cos(2 pi r)-1)/r**2 in r**2, for |r| <= 1/8. float64.
SIN64 = (6.283185307179586, -41.34170224039976, 81.60524927607506, -76.70585975306139,
         42.058693944897655, -15.09464257682299, 3.819952584848282, -0.7181223017785006,
         0.10422916220813984)  # fmt: skip
COS64 = (-19.739208802178716, 64.9393940226683, -85.45681720669373, 60.24464137187666,
         -26.4262567833744, 7.903536371318469, -1.714390711088672, 0.28200596845579123,
         -0.03638284114254567)  # fmt: skip


def words(count: int, seed: int, stream: int, start: int = 0) -> np.ndarray:
    """uint64 words ``start`` .. ``start + count - 1`` (``start`` a multiple of 4)."""
    mask = (1 << 64) - 1
    generator = np.random.Philox(
        key=np.array([seed & mask, 0], np.uint64),
        counter=np.array([start // 4, 0, stream & mask, 0], np.uint64),  # steps before it draws
    )
    if not count:
        return np.empty(0, np.uint64)
    return np.random.Generator(generator).integers(0, mask, count, dtype=np.uint64, endpoint=True)


def random(kind: str, n: int, dtype: np.dtype, seed: int, stream: int) -> np.ndarray:
    """``n`` values of ``kind`` (bits, uniform, normal), 1-d, of ``dtype``."""
    out = np.empty(n, dtype)
    fill = _FILL[kind]
    per_word = 1 if dtype.itemsize == 8 else 2
    for start in range(0, n, _BLOCK * per_word):
        part = out[start : start + _BLOCK * per_word]
        count = -(-part.size // per_word)
        count += count & 1  # a float64 pair takes two words
        fill(part, words(count, seed, stream, start // per_word))
    return out


def _bits(out: np.ndarray, word: np.ndarray) -> None:
    out[:] = word[: out.size].view(np.int64)


def _uniform(out: np.ndarray, word: np.ndarray) -> None:
    if out.dtype.itemsize == 8:
        np.multiply(word[: out.size] >> np.uint64(11), 2.0**-53, out=out)
        return
    half = _halves(word)[: out.size]
    digits = {"float32": 24, "float16": 11, "bfloat16": 8}[out.dtype.name]
    exact = (half >> np.uint32(32 - digits)).astype(np.float32)
    exact *= np.float32(2.0**-digits)
    out[:] = exact


def _normal(out: np.ndarray, word: np.ndarray) -> None:
    u: Any
    v: Any
    radius: Any
    if out.dtype.itemsize == 8:
        u = ((word[0::2] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        v = (word[1::2] >> np.uint64(11)).astype(np.float64) * 2.0**-53
        radius = np.sqrt(-2.0 * _log64(u))
        cosine, sine = _turn(v, SIN64, COS64, np.float64)
    else:
        half = _halves(word)
        u = half[0::2].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
        v = (half[1::2] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        radius = _sqrt32(np.float32(-2.0) * _log32(u))
        cosine, sine = _turn(v, SIN32, COS32, np.float32)
    pair = np.empty((u.size, 2), u.dtype)
    np.multiply(radius, cosine, out=pair[:, 0])
    np.multiply(radius, sine, out=pair[:, 1])
    out[:] = pair.reshape(-1)[: out.size]


_FILL = {"bits": _bits, "uniform": _uniform, "normal": _normal}


def _halves(word: np.ndarray) -> np.ndarray:
    return word.astype("<u8", copy=False).view("<u4")


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Horner's rule, every product and sum rounded to the dtype of ``x``."""
    kind = x.dtype.type
    total = np.full_like(x, kind(coefficients[-1]))
    for c in coefficients[-2::-1]:
        total *= x
        total += kind(c)
    return total


def _log32(u: np.ndarray) -> np.ndarray:
    """ln u for normal positive float32: u = m 2**e with m in [sqrt(1/2), sqrt(2))."""
    bits = u.view(np.int32) - np.int32(0x3F3504F3)  # sqrt(1/2) becomes 0, so >> 23 floors to e
    e = (bits >> np.int32(23)).astype(np.float32)
    m = ((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3)).view(np.float32)
    f = m - np.float32(1.0)
    return e * np.float32(0.6931471805599453) + ((f * f) * _polynomial(LOG32, f) + f)


def _log64(u: np.ndarray) -> np.ndarray:
    """ln u = e ln 2 + 2 atanh((m-1)/(m+1)), the series to the 23rd power. Division is exact
    to the last bit everywhere in float64, unlike in OpenCL's float32."""
    bits = u.view(np.int64) - np.int64(0x3FE6A09E667F3BCD)
    e = (bits >> np.int64(52)).astype(np.float64)
    m = ((bits & np.int64(0x000FFFFFFFFFFFFF)) + np.int64(0x3FE6A09E667F3BCD)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    series = _polynomial(ATANH64, s * s)
    return e * 0.6931471805599453 + s * series


ATANH64 = tuple(2.0 / (2 * k + 1) for k in range(12))


def _sqrt32(s: np.ndarray) -> np.ndarray:
    """sqrt s by Newton's iteration for 1/sqrt, from the exponent-halving first guess."""
    y = (np.int32(0x5F3759DF) - (s.view(np.int32) >> np.int32(1))).view(np.float32)
    h = np.float32(0.5) * s
    for _ in range(4):
        y = y * (np.float32(1.5) - (h * y) * y)
    return s * y


def _turn(v: np.ndarray, sin: tuple[float, ...], cos: tuple[float, ...], kind: Any) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of ``v`` turns (0 <= v < 1): reduced to an eighth of a turn, then a polynomial."""
    quarter = np.floor(v * kind(4.0) + kind(0.5))
    r = v - quarter * kind(0.25)
    z = r * r
    s = r * _polynomial(sin, z)
    c = z * _polynomial(cos, z) + kind(1.0)
    q = quarter.astype(np.int32)
    swap = (q & 1).astype(bool)
    cosine = np.where(swap, s, c)
    sine = np.where(swap, c, s)
    cosine = np.where(((q + 1) & 2).astype(bool), -cosine, cosine)
    sine = np.where((q & 2).astype(bool), -sine, sine)
    return cosine, sine
