"""The coefficients in kernels/coefficients.h, computed with mpmath at 40 digits.

``python tools/special_coefficients.py > kernels/coefficients.h`` writes the file anew; it needs mpmath.
A Chebyshev table holds c[0], c[1], ... of c[0]/2 + sum of c[k] T_k(t); what t is, is said beside each.
"""

from __future__ import annotations

import itertools

import mpmath as mp

mp.mp.dps = 40


def chebyshev(function, nodes: int = 64) -> list:
    """Coefficients on t in [-1, 1], cut where they fall below 2e-18 of the largest."""
    angles = [mp.pi * (j + mp.mpf(1) / 2) / nodes for j in range(nodes)]
    values = [function(mp.cos(a)) for a in angles]
    found = [2 * mp.fsum(v * mp.cos(k * a) for v, a in zip(values, angles, strict=True)) / nodes for k in range(nodes)]
    size = max(abs(c) for c in found)
    while abs(found[-1]) < size * mp.mpf("2e-18"):
        found.pop()
    return found


def near(function, end):
    """On x in [0, end]: t = 2 x / end - 1."""
    return chebyshev(lambda t: function(end * (t + 1) / 2))


def near_squared(function, end):
    """On x in [0, end], in x^2: t = 2 (x / end)^2 - 1."""
    return chebyshev(lambda t: function(end * mp.sqrt((t + 1) / 2)))


def far(function, start):
    """On x >= start: t = 2 start / x - 1."""
    return chebyshev(lambda t: function(2 * start / (t + 1)))


def far_squared(function, start):
    """On x >= start, in 1 / x^2: t = 2 (start / x)^2 - 1."""
    return chebyshev(lambda t: function(start * mp.sqrt(2 / (t + 1))))


def powers(function, low, high, centre) -> list:
    """Coefficients of the powers of x - centre, on x in [low, high]: those of the Chebyshev sum, written out."""
    low, high, centre = (mp.mpf(x) for x in (low, high, centre))
    half, start = (high - low) / 2, centre - (low + high) / 2
    c = chebyshev(lambda t: function((low + high) / 2 + half * t))
    t = [start / half, 1 / half]  # t as a polynomial in x - centre
    one, two = [mp.mpf(1)], t
    total = [c[0] / 2]
    for k in range(1, len(c)):
        total = [a + c[k] * b for a, b in zip_all(total, two)]
        higher = [mp.mpf(0), *(2 * t[1] * b for b in two)]
        one, two = two, [a + 2 * t[0] * b - d for a, b, d in zip_all(higher, two, one)]
    return total


def zip_all(*lists):
    return itertools.zip_longest(*lists, fillvalue=mp.mpf(0))


def over_zero(zero: int):
    """log gamma(x) / (x - zero), at one of its two zeros."""
    return lambda x: mp.loggamma(x) / (x - zero) if x != zero else mp.digamma(zero)


def modulus(order: int, part: int):
    """P (part 0) or x Q (part 1) of J = sqrt(2 / (pi x)) (P cos(w) - Q sin(w)), w = x - (2 order + 1) pi / 4."""

    def value(x):
        with mp.workdps(60 + int(mp.log10(x + 1))):
            w = x - (2 * order + 1) * mp.pi / 4
            scale = mp.sqrt(mp.pi * x / 2)
            j, y = mp.besselj(order, x), mp.bessely(order, x)
            if part == 0:
                return scale * (j * mp.cos(w) + y * mp.sin(w))
            return x * scale * (y * mp.cos(w) - j * mp.sin(w))

    return value


def without_zeros(order: int):
    zeros = [mp.besseljzero(order, k) for k in (1, 2)]
    if order == 0:
        return lambda x: mp.besselj(0, x) / ((x * x - zeros[0] ** 2) * (x * x - zeros[1] ** 2))
    return lambda x: (
        (mp.besselj(1, x) / x if x else mp.mpf(1) / 2) / ((x * x - zeros[0] ** 2) * (x * x - zeros[1] ** 2))
    )


def y_rest(order: int):
    if order == 0:
        return lambda x: mp.bessely(0, x) - 2 / mp.pi * mp.log(x) * mp.besselj(0, x)
    return lambda x: (mp.bessely(1, x) - 2 / mp.pi * (mp.log(x) * mp.besselj(1, x) - 1 / x)) / x


def k_rest(order: int):
    if order == 0:
        return lambda x: mp.besselk(0, x) + mp.log(x / 2) * mp.besseli(0, x)
    return lambda x: (mp.besselk(1, x) - mp.log(x / 2) * mp.besseli(1, x) - 1 / x) / x


AIRY_START = mp.mpf(2) / 3 * mp.sqrt(8)


def airy_right(w):
    with mp.workdps(50):
        x = (mp.mpf(3) / 2 * w) ** (mp.mpf(2) / 3)
        return 2 * mp.sqrt(mp.pi) * mp.root(x, 4) * mp.exp(w) * mp.airyai(x)


def airy_left(part: int):
    def value(w):
        with mp.workdps(60 + int(mp.log10(w + 1))):
            x, u = (mp.mpf(3) / 2 * w) ** (mp.mpf(2) / 3), w - mp.pi / 4
            scale = mp.sqrt(mp.pi) * mp.root(x, 4)
            a, b = mp.airyai(-x), mp.airybi(-x)
            return scale * (a * mp.cos(u) - b * mp.sin(u) if part == 0 else w * (a * mp.sin(u) + b * mp.cos(u)))

    return value


TABLES = [
    ("I0_NEAR", "exp(-x) I0(x), t = x / 4 - 1", lambda: near(lambda x: mp.exp(-x) * mp.besseli(0, x), 8)),
    ("I0_FAR", "sqrt(x) exp(-x) I0(x), t = 16 / x - 1",
     lambda: far(lambda x: mp.sqrt(x) * mp.exp(-x) * mp.besseli(0, x), 8)),
    ("I1_NEAR", "exp(-x) I1(x) / x, t = x / 4 - 1",
     lambda: near(lambda x: mp.exp(-x) * mp.besseli(1, x) / x, 8)),
    ("I1_FAR", "sqrt(x) exp(-x) I1(x), t = 16 / x - 1",
     lambda: far(lambda x: mp.sqrt(x) * mp.exp(-x) * mp.besseli(1, x), 8)),
    ("J0_NEAR", "J0(x) over (x^2 - z^2) of its first two zeros, t = x^2 / 32 - 1",
     lambda: near_squared(without_zeros(0), 8)),
    ("J1_NEAR", "J1(x) / x over (x^2 - z^2) of its first two zeros, t = x^2 / 32 - 1",
     lambda: near_squared(without_zeros(1), 8)),
    ("Y0_NEAR", "Y0(x) - 2/pi log(x) J0(x), t = x^2 / 32 - 1", lambda: near_squared(y_rest(0), 8)),
    ("Y1_NEAR", "(Y1(x) - 2/pi (log(x) J1(x) - 1/x)) / x, t = x^2 / 32 - 1", lambda: near_squared(y_rest(1), 8)),
    ("P0_FAR", "P of J0 and Y0, t = 128 / x^2 - 1", lambda: far_squared(modulus(0, 0), 8)),
    ("Q0_FAR", "x Q of J0 and Y0, t = 128 / x^2 - 1", lambda: far_squared(modulus(0, 1), 8)),
    ("P1_FAR", "P of J1 and Y1, t = 128 / x^2 - 1", lambda: far_squared(modulus(1, 0), 8)),
    ("Q1_FAR", "x Q of J1 and Y1, t = 128 / x^2 - 1", lambda: far_squared(modulus(1, 1), 8)),
    ("K0_NEAR", "K0(x) + log(x / 2) I0(x), t = x^2 / 2 - 1", lambda: near_squared(k_rest(0), 2)),
    ("K1_NEAR", "(K1(x) - log(x / 2) I1(x) - 1/x) / x, t = x^2 / 2 - 1", lambda: near_squared(k_rest(1), 2)),
    ("K0_FAR", "sqrt(x) exp(x) K0(x), t = 4 / x - 1",
     lambda: far(lambda x: mp.sqrt(x) * mp.exp(x) * mp.besselk(0, x), 2)),
    ("K1_FAR", "sqrt(x) exp(x) K1(x), t = 4 / x - 1",
     lambda: far(lambda x: mp.sqrt(x) * mp.exp(x) * mp.besselk(1, x), 2)),
    ("AIRY_MIDDLE", "Ai(x) for -4 <= x <= 2, t = (x + 1) / 3", lambda: chebyshev(lambda t: mp.airyai(3 * t - 1))),
    ("AIRY_RIGHT", "2 sqrt(pi) x^(1/4) exp(w) Ai(x) for x >= 2, w = 2/3 x^(3/2), t = 2 w(2) / w - 1",
     lambda: far(airy_right, AIRY_START)),
    ("AIRY_P", "P of Ai(-x) = (P cos(u) + Q sin(u)) / (sqrt(pi) x^(1/4)) for x >= 4, u = w - pi / 4, "
     "t = 2 (w(4) / w)^2 - 1", lambda: far_squared(airy_left(0), mp.mpf(16) / 3)),
    ("AIRY_Q", "w Q, likewise", lambda: far_squared(airy_left(1), mp.mpf(16) / 3)),
]  # fmt: skip

SERIES = [
    ("LGAMMA_1", "log gamma(1 + x) / x in x, |x| <= 1/2",
     lambda: powers(over_zero(1), 0.5, 1.5, 1)),
    ("LGAMMA_MIDDLE", "log gamma(3/2 + x) in x, |x| <= 1/4",
     lambda: powers(mp.loggamma, 1.25, 1.75, 1.5)),
    ("LGAMMA_2", "log gamma(2 + x) / x in x, -1/4 <= x <= 1",
     lambda: powers(over_zero(2), 1.75, 3, 2)),
    ("STIRLING", "B(2k) / (2k (2k - 1)) for k = 1, 2, ...: log gamma(x) in 1 / x^2",
     lambda: [mp.bernoulli(2 * k) / (2 * k * (2 * k - 1)) for k in range(1, 10)]),
    ("BERNOULLI", "B(2k) / 2k for k = 1, 2, ...: digamma(x) in 1 / x^2",
     lambda: [mp.bernoulli(2 * k) / (2 * k) for k in range(1, 10)]),
    ("EULER", "B(2k) / (2k)! for k = 1, 2, ...: the Euler-Maclaurin formula",
     lambda: [mp.bernoulli(2 * k) / mp.factorial(2 * k) for k in range(1, 13)]),
    ("TEMME", "rows of 16 coefficients of eta^n in C_0(eta), C_1(eta), ...: NIST Handbook (2010), 8.12.7 to 8.12.13",
     lambda: temme(6, 16)),
    ("J0_ZEROS", "first two zeros of J0, each of 44 bits after the point and the rest, then of 20",
     lambda: zeros(0)),
    ("J1_ZEROS", "the same of J1", lambda: zeros(1)),
]  # fmt: skip


def zeros(order: int) -> list:
    """Each zero cut to 44 bits and what that leaves, then cut to 20 bits: differences from x are exact."""
    found = []
    for bits in (44, 20):
        for k in (1, 2):
            z = mp.besseljzero(order, k)
            cut = mp.floor(z * 2**bits) / 2**bits
            found += [cut, z - cut]
    return found


HEAD = """\
// Coefficients of special functions, computed by tools/special_coefficients.py, which writes this file;
// gpugrad/ops/numerics.py reads it too. Chebyshev tables c stand for c[0]/2 + c[1] T_1(t) + c[2] T_2(t) + ...
#ifdef FLOATING
"""


def temme(rows: int, columns: int) -> list:
    """Temme's expansion of the incomplete gamma functions: eta^2 / 2 = mu - log(1 + mu), and
    C_0 = 1/mu - 1/eta, C_k = C_{k-1}' / eta + (-1)^k g_k / mu with gamma*(a) ~ sum of g_k / a^k."""
    length = columns + 2 * rows + 3
    mu = [mp.mpf(0), mp.mpf(1)]  # mu mu' = eta (1 + mu), coefficient by coefficient
    for n in range(2, length):
        known = mp.fsum(mu[i] * mu[n + 1 - i] * (n + 1 - i) for i in range(2, n))
        mu.append((mu[n - 1] - known) / (n + 1))
    inverse = [mp.mpf(1)]  # of mu / eta
    for n in range(1, length - 1):
        inverse.append(-mp.fsum(mu[i + 1] * inverse[n - i] for i in range(1, n + 1)))

    def gamma_star(z):
        return mp.exp(
            mp.fsum(mp.bernoulli(2 * k) / (2 * k * (2 * k - 1)) * z ** (2 * k - 1) for k in range(1, rows + 1))
        )

    stirling = mp.taylor(gamma_star, 0, rows)
    row, found = inverse[1:], []  # 1/mu = 1/eta + inverse[1] + ...
    for k in range(rows):
        if k:
            g = (-1) ** k * stirling[k]
            # The poles of both parts in eta cancel.
            row = [(n + 2) * c + g * inverse[n + 1] for n, c in enumerate(row[2:])]
        found += row[:columns]
    return found


def main() -> None:
    print(HEAD, end="")
    for name, what, make in SERIES + TABLES:
        numbers = [mp.nstr(c, 18, min_fixed=0, max_fixed=0) for c in make()]
        print(f"\n// {what}\nCONSTANT T GG_{name}[] = {{")
        for i in range(0, len(numbers), 4):
            print("    " + " ".join(f"{n}," for n in numbers[i : i + 4]))
        print("};")
    print("\n#endif")


if __name__ == "__main__":
    main()
