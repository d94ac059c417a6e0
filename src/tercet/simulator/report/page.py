"""The page itself: a template, and plots that go with the page's colours."""

from collections.abc import Iterator
from importlib.util import find_spec

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tercet.errors import OptionError
from tercet.simulator.results import Results
from tercet.simulator.summary import duration, figures, latencies, settings, title


def needs_plots(option: str) -> None:
    """Raises OptionError, in time, where plots cannot be drawn."""
    if find_spec("matplotlib") is None:
        hint = "pip install 'tercet[report]'"
        raise OptionError(option, "plots are drawn by matplotlib, which is not installed", hint)


def page(results: Results) -> str:
    """HTML, with everything inside."""
    templates = PackageLoader("tercet.simulator.report", package_path="")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined)
    environment.filters["duration"] = duration
    return environment.get_template("page.html.j2").render(
        title=title(results.setup),
        latencies=list(latencies(results)),
        figures=list(figures(results)),
        settings=list(settings(results.setup)),
        plots=list(_plots(results)),
    )


def _plots(results: Results) -> Iterator[tuple[str, str, Markup]]:
    """Headings, what is seen, and pictures."""
    from tercet.simulator.report import plots  # noqa: PLC0415 -- loads matplotlib, which is optional

    setup, series = results.setup, results.series
    if results.ttft_curve_s:
        promised = f"the line is what was promised, {duration(setup.slo_ttft_s)}"
        yield (
            "Time to first token",
            f"share of requests that had it by then; {promised}",
            plots.distribution("ttft", results.ttft_curve_s, setup.slo_ttft_s),
        )
    if results.itl_curve_s:
        promised = f"the line is what was promised of a request's mean, {duration(setup.slo_itl_s)}"
        yield (
            "Time between tokens",
            f"share of all times between two tokens; {promised}",
            plots.distribution("itl", results.itl_curve_s, setup.slo_itl_s),
        )
    if len(series.times_s) < 2:
        return  # everything was over at once
    yield "Load", "share of the time in which each worker computes", plots.load(results.load)
    yield (
        "Requests",
        "waiting at front doors, and in flight altogether",
        plots.lines("requests", series.times_s, waiting=series.queued, altogether=series.in_flight),
    )
    yield (
        "Cache",
        "share of prompt tokens found in caches, of requests that ended then",
        plots.share("cache", series.times_s, series.hit_rate, series.requests_per_s),
    )
