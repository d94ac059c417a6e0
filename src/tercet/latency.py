"""How long a step takes: two linear models, fitted while the engine runs.

    prefill  seconds = c0 + c1 · tokens + c2 · token_context     token_context = Σ over tokens of the tokens each attends to
    decode   seconds = d0 + d1 · batch  + d2 · context           context = Σ over requests of their context lengths

Both are members of the family that DistServe, xLLM and FlowPrefill use. The part knows nothing of requests, queues or
clocks; whoever measures a step says what was in it and how long it took.
"""

import math

Coefficients = tuple[float, float, float]
"""Seconds per step, per first feature, per second feature."""

UNFITTED: Coefficients = (0.0, 0.0, 0.0)

SAMPLES_MIN = 32
"""Observations before a fit is believed."""
SOLVE_EVERY = 16
"""Observations between two solutions: a solution costs about 40 µs, an observation about 2 µs."""
MEMORY_SAMPLES = 256
"""An observation's weight falls to 1/e after this many newer ones."""
PULL_TO_LAST = 1e-3
"""Relative strength with which a solution stays at the last one where the data say nothing (all steps alike)."""
SPREAD_MIN = 0.02
"""Relative deviations below this are never suspicious."""
SUSPICION = 3.0
"""Deviations above so many typical ones lose weight in proportion (Huber's rule): a pause must not become the model."""
WEIGHT_MAX = 1e9
"""Growing weights stand for forgetting; the sums are scaled down when a new weight would pass this."""

Sums = tuple[float, float, float, float, float, float]
"""Upper triangle of a symmetric 3x3 matrix: 00 01 02 11 12 22."""


def attended_tokens(tokens: int, context: int) -> int:
    """Σ of what each of the last `tokens` tokens of a `context`-token sequence attends to, itself included."""
    return tokens * context - tokens * (tokens - 1) // 2


def _minor(sums: Sums, chosen: tuple[int, ...]) -> list[list[float]]:
    """The rows and columns `chosen` of the symmetric matrix."""
    place = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
    return [[sums[place[i][j]] for j in chosen] for i in chosen]


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gaussian elimination of a positive definite system; None when it is singular."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(size):
        if rows[i][i] <= 1e-12:
            return None
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][j] * solution[j] for j in range(i + 1, size))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution


_SUBSETS = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))


def solve_non_negative(sums: Sums, right: Coefficients) -> Coefficients:
    """The x ≥ 0 that minimises xᵀAx - 2rightᵀx: with three unknowns the best of all active sets is found by trying them."""
    best, best_cost = UNFITTED, 0.0
    for chosen in _SUBSETS:
        part = _solve(_minor(sums, chosen), [right[i] for i in chosen])
        if part is None or min(part) < 0.0:
            continue
        cost = -sum(value * right[i] for i, value in zip(chosen, part, strict=True))
        if cost < best_cost:
            full = dict(zip(chosen, part, strict=True))
            best, best_cost = (full.get(0, 0.0), full.get(1, 0.0), full.get(2, 0.0)), cost
    return best


class LinearFit:
    """`seconds = a0 + a1·u + a2·v` with non-negative coefficients, by least squares on relative errors that forgets.

    Errors count relative to the prediction, because the noise of a step grows with its length; outliers lose weight.
    """

    __slots__ = ("_growth", "_right", "_samples", "_spread", "_sums", "_weight", "coefficients")

    def __init__(self, initial: Coefficients = UNFITTED) -> None:
        assert all(math.isfinite(c) and c >= 0 for c in initial), f"not a latency model: {initial}"
        self.coefficients = initial
        """All zero until fitted, unless initial ones were given."""
        self._sums: Sums = (0.0,) * 6
        self._right: Coefficients = UNFITTED
        self._weight, self._growth = 1.0, math.exp(1.0 / MEMORY_SAMPLES)
        self._samples = 0
        self._spread = (
            0.5  # the typical relative deviation; nothing is suspicious before something is known
        )

    def predict_s(self, u: float, v: float) -> float:
        """Seconds of a step with these features; 0 while nothing is known."""
        a0, a1, a2 = self.coefficients
        return a0 + a1 * u + a2 * v

    def observe(self, u: float, v: float, seconds: float) -> None:
        """A step with these features took so long. A duration that is not positive and finite is no measurement."""
        if not 0.0 < seconds < math.inf:
            return
        weight = self._weight * self._trust(self.predict_s(u, v), seconds)
        wu, wv = weight * u, weight * v
        s00, s01, s02, s11, s12, s22 = self._sums
        self._sums = (s00 + weight, s01 + wu, s02 + wv, s11 + wu * u, s12 + wu * v, s22 + wv * v)
        r0, r1, r2 = self._right
        self._right = (r0 + weight * seconds, r1 + wu * seconds, r2 + wv * seconds)
        self._weight *= self._growth
        self._samples += 1
        if self._samples >= SAMPLES_MIN and self._samples % SOLVE_EVERY == 0:
            self._solve()

    def _trust(self, expected_s: float, seconds: float) -> float:
        """The weight of an observation: 1/expected² for relative errors, times Huber's factor for outliers."""
        if expected_s <= 0.0:
            return 1.0 / (seconds * seconds)
        deviation = abs(seconds - expected_s) / expected_s
        limit = SUSPICION * self._spread
        self._spread += 0.05 * (min(deviation, limit) - self._spread)
        self._spread = max(self._spread, SPREAD_MIN)
        return (limit / deviation if deviation > limit else 1.0) / (expected_s * expected_s)

    def _solve(self) -> None:
        if self._weight > WEIGHT_MAX:
            shrink = 1.0 / self._weight
            s00, s01, s02, s11, s12, s22 = (value * shrink for value in self._sums)
            self._sums = (s00, s01, s02, s11, s12, s22)
            r0, r1, r2 = self._right
            self._right = (r0 * shrink, r1 * shrink, r2 * shrink)
            self._weight = 1.0
        s00, s01, s02, s11, s12, s22 = self._sums
        # Features differ by many powers of ten: unit diagonal first, then the pull to the last solution.
        x, y, z = (1.0 / math.sqrt(d) if d > 0.0 else 0.0 for d in (s00, s11, s22))
        one = 1.0 + PULL_TO_LAST
        scaled: Sums = (one, s01 * x * y, s02 * x * z, one, s12 * y * z, one)
        right, last = self._right, self.coefficients
        pulled = [
            r * n + (PULL_TO_LAST * c / n if n else 0.0)
            for r, n, c in zip(right, (x, y, z), last, strict=True)
        ]
        a0, a1, a2 = solve_non_negative(scaled, (pulled[0], pulled[1], pulled[2]))
        self.coefficients = (a0 * x, a1 * y, a2 * z)


class LatencyModel:
    """Predicts prefill and decode steps of one worker; zero means "not known yet"."""

    def __init__(self, prefill: Coefficients = UNFITTED, decode: Coefficients = UNFITTED) -> None:
        self._prefill, self._decode = LinearFit(prefill), LinearFit(decode)

    @classmethod
    def from_coefficients(cls, prefill: Coefficients, decode: Coefficients) -> "LatencyModel":
        """A model that predicts at once: from a worker's report, or from a profile to start with."""
        return cls(prefill, decode)

    @property
    def prefill_coefficients(self) -> Coefficients:
        """c0, c1, c2; all zero until fitted."""
        return self._prefill.coefficients

    @property
    def decode_coefficients(self) -> Coefficients:
        """d0, d1, d2; all zero until fitted."""
        return self._decode.coefficients

    def observe_prefill(self, tokens: int, token_context: int, seconds: float) -> None:
        """A step prefilled `tokens` tokens in all; `token_context` is Σ of `attended_tokens` over its requests."""
        self._prefill.observe(tokens, token_context, seconds)

    def observe_decode(self, batch: int, context: int, seconds: float) -> None:
        """A step decoded one token of each of `batch` requests, `context` tokens long together."""
        self._decode.observe(batch, context, seconds)

    def predict_prefill_s(self, tokens: int, context: int) -> float:
        """Seconds to prefill the last `tokens` tokens of one sequence of `context` tokens, alone in its step."""
        return self._prefill.predict_s(tokens, attended_tokens(tokens, context))

    def predict_decode_s(self, batch: int, context: int) -> float:
        """Seconds of one decode step for `batch` requests that are `context` tokens long together."""
        return self._decode.predict_s(batch, context)
