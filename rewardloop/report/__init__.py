"""One self-contained HTML page of a run, from what `GET /v1/runs/{id}/report` gives. Pure.

Invariants: everything of the data is escaped, since a model's text may be anything; the
page loads nothing from anywhere and runs no script (its own content security policy
forbids both); the same data gives the same page. Knows neither the store nor HTTP.

`reading` copes with what is missing, `tables` and `figures` choose what is shown,
`charts` draws, `wording` spells.
"""

from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from rewardloop.report import charts, figures, paper, reading, tables, wording

_page = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=ChainableUndefined,
    finalize=wording.plain,
    trim_blocks=True,
    lstrip_blocks=True,
)
_page.filters |= {
    spell.__name__: spell
    for spell in (
        *(wording.number, wording.fixed, wording.hundredths, wording.percent, wording.points),
        *(wording.duration, wording.moment, wording.spaced, wording.document),
    )
}
_page.globals |= {
    "charts": charts,
    "figures": figures,
    "interval": wording.interval,
    "range_of": wording.range_of,
    "paper": paper,
    "reading": reading,
    "tables": tables,
}


def render(data: dict[str, Any]) -> str:
    """The page; any part of `data` may be empty, null or missing, and the page says why."""
    return _page.get_template("page.html").render(data=reading.complete(data))
