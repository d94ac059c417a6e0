"""A page about one simulation that needs nothing else: plots, figures, and what was simulated."""

from tercet.simulator.report.page import needs_plots, page

__all__ = ["needs_plots", "page"]
