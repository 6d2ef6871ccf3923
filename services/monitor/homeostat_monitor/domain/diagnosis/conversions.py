"""Known conversions of units, and where a reference's values would fall after one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis.views import Floats
from homeostat_monitor.domain.windows.bins import NumberBins

# A transformed single value this near to an edge (in parts of its size) lies on it.
_SNAP = 1e-6


@dataclass(frozen=True, slots=True)
class Conversion:
    """``slope`` times the value plus ``offset``."""

    slope: float
    offset: float
    text: str


def _both_ways(slope: float, text: str, back: str) -> tuple[Conversion, Conversion]:
    return Conversion(slope, 0.0, text), Conversion(1 / slope, 0.0, back)


# Factors as in NIST Special Publication 811 (2008), appendix B.
CATALOGUE: tuple[Conversion, ...] = (
    Conversion(1.8, 32.0, "degrees Celsius sent as Fahrenheit (x 1.8 + 32)"),
    Conversion(1 / 1.8, -32 / 1.8, "degrees Fahrenheit sent as Celsius ((x - 32) / 1.8)"),
    Conversion(1.0, 273.15, "degrees Celsius sent as kelvin (+ 273.15)"),
    Conversion(1.0, -273.15, "kelvin sent as degrees Celsius (- 273.15)"),
    *_both_ways(1.8, "another unit of temperature (x 1.8)", "another unit of temperature (/ 1.8)"),
    *_both_ways(1000.0, "thousandths of the unit (x 1000)", "thousands of the unit (/ 1000)"),
    *_both_ways(1e6, "millionths of the unit (x 1,000,000)", "millions of the unit (/ 1,000,000)"),
    *_both_ways(100.0, "a share sent as per cent (x 100)", "per cent sent as a share (/ 100)"),
    *_both_ways(10.0, "tenths of the unit (x 10)", "tens of the unit (/ 10)"),
    *_both_ways(60.0, "minutes sent as seconds (x 60)", "seconds sent as minutes (/ 60)"),
    *_both_ways(3600.0, "hours sent as seconds (x 3600)", "seconds sent as hours (/ 3600)"),
    *_both_ways(24.0, "days sent as hours (x 24)", "hours sent as days (/ 24)"),
    *_both_ways(3.6, "m/s sent as km/h (x 3.6)", "km/h sent as m/s (/ 3.6)"),
    *_both_ways(1.609344, "miles sent as kilometres (x 1.609)", "kilometres as miles (/ 1.609)"),
    *_both_ways(1.852, "knots sent as km/h (x 1.852)", "km/h sent as knots (/ 1.852)"),
    *_both_ways(0.3048, "feet sent as metres (x 0.3048)", "metres sent as feet (/ 0.3048)"),
    *_both_ways(2.54, "inches sent as centimetres (x 2.54)", "centimetres as inches (/ 2.54)"),
    *_both_ways(25.4, "inches sent as millimetres (x 25.4)", "millimetres as inches (/ 25.4)"),
    *_both_ways(2.20462, "kilograms sent as pounds (x 2.2046)", "pounds as kilograms (/ 2.2046)"),
    *_both_ways(4.184, "calories sent as joules (x 4.184)", "joules sent as calories (/ 4.184)"),
    *_both_ways(6.89476, "psi sent as kilopascals (x 6.895)", "kilopascals as psi (/ 6.895)"),
    *_both_ways(33.8639, "inches of mercury sent as hPa (x 33.86)", "hPa as inHg (/ 33.86)"),
    *_both_ways(3.785412, "gallons sent as litres (x 3.785)", "litres sent as gallons (/ 3.785)"),
    Conversion(-1.0, 0.0, "the sign turned round (x -1)"),
)
# Words in names of what is measured, and words in the texts above of units that measure it.
_MEASURED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("temp", "heat", "celsius", "fahr", "kelvin", "dew", "therm"): ("elsius",),
    ("dist", "mile", "kilomet", "visib"): ("miles", "feet", "kilometres"),
    ("height", "elev", "altit", "depth", "length", "width"): ("feet", "inches", "metres"),
    ("speed", "wind", "veloc", "gust"): ("m/s", "knots", "km/h", "miles"),
    ("precip", "rain", "snow"): ("inches",),
    ("press", "baro"): ("psi", "hPa", "mercury"),
    ("weight", "mass"): ("kilograms", "thousand"),
    ("energy", "calor"): ("calories", "joules"),
    ("volume", "fuel", "tank"): ("litres",),
    ("share", "rate", "ratio", "percent", "pct", "humid"): ("per cent",),
    ("time", "dura", "delay", "elapsed"): ("minutes", "seconds", "hours", "thousand"),
}
# How many times likelier a conversion is of what the feature is named after.
_NAMED = 10.0
SLOPES = np.array([each.slope for each in CATALOGUE])
OFFSETS = np.array([each.offset for each in CATALOGUE])


def log_priors(name: str) -> Floats:
    """[conversions], of a feature of that name; they add up to 1. A name says what is measured,
    and only some units measure that."""
    lower = name.lower()
    units = {one for words, of in _MEASURED.items() if any(w in lower for w in words) for one in of}
    fits = [any(unit in each.text for unit in units) for each in CATALOGUE]
    weights = np.where(fits, _NAMED, 1.0)
    found: Floats = np.log(weights / weights.sum())
    return found


@dataclass(frozen=True, slots=True)
class Source:
    """A reference's values: shares of single values, and shares spread evenly between edges."""

    edges: Floats
    spread: Floats
    atoms: Floats
    atom_shares: Floats


def source_of(bins: NumberBins, counts: Floats) -> Source:
    """``counts``: rows per bin, without the null bin; the two bins outside hold no known value."""
    edges = bins.edges.astype(np.float64)
    inner = counts[1:-1] / max(counts[1:-1].sum(), 1.0)
    above = np.nextafter(bins.edges[:-1], np.inf, dtype=bins.edges.dtype)
    is_atom = bins.edges[1:] <= above
    spread = np.concatenate([[0.0], np.cumsum(np.where(is_atom, 0.0, inner))])
    return Source(edges, spread, edges[:-1][is_atom], inner[is_atom])


@np.errstate(over="ignore", invalid="ignore")
def pushed(source: Source, into: NDArray[np.floating], slopes: Floats, offsets: Floats) -> Floats:
    """Shares of the bins between the edges ``into`` after each conversion; [conversions, bins]."""
    edges = into.astype(np.float64)
    back = (edges[None, :] - offsets[:, None]) / slopes[:, None]
    below = np.interp(back, source.edges, source.spread)
    below = np.where(slopes[:, None] > 0, below, source.spread[-1] - below)
    whole = np.full((len(slopes), 1), source.spread[-1])
    shares: Floats = np.diff(np.concatenate([np.zeros_like(whole), below, whole], axis=1), axis=1)
    if len(source.atoms):
        values = slopes[:, None] * source.atoms[None, :] + offsets[:, None]
        places = _places(edges, values)
        rows = np.broadcast_to(np.arange(len(slopes))[:, None], places.shape)
        np.add.at(shares, (rows, places), np.broadcast_to(source.atom_shares, places.shape))
    return np.maximum(shares, 0.0)


@np.errstate(over="ignore", invalid="ignore")
def _places(edges: Floats, values: Floats) -> NDArray[np.intp]:
    """Bins of single values; what lies on an edge but for rounding lies on it. An infinite value
    is no distance from an infinite edge, and lies where it lies."""
    near = np.clip(np.searchsorted(edges, values), 0, len(edges) - 1)
    for shift in (0, 1):
        neighbour = np.maximum(near - shift, 0)
        edge = edges[neighbour]
        # Of an edge and the number just above it the first is the value itself.
        lower = np.maximum(neighbour - 1, 0)
        first = np.where(np.abs(edges[lower] - edge) <= _SNAP * np.abs(edge), edges[lower], edge)
        values = np.where(np.abs(values - edge) <= _SNAP * np.abs(edge), first, values)
    return np.searchsorted(edges, values, side="right")
