"""What happened, for people: stored segments become a page, a table, JSON or CSV.

build(store, since, until) -> Report ─▶ to_html · to_json · to_csv · to_text

summary   the numbers: availability, quality, faults, worst moments; worst stream first
episodes  findings of neighbouring segments become one fault with a beginning and an end
plots     SVG drawn from the numbers         album   pictures made small enough to embed
page      the HTML file (page.html.jinja)    plain   JSON, CSV and the terminal
"""

from vqmon.report.contents import Band, Fault, Point, Quality, Report, StreamReport, Totals
from vqmon.report.page import to_html
from vqmon.report.plain import to_csv, to_json, to_text
from vqmon.report.summary import build

__all__ = [
    "Band",
    "Fault",
    "Point",
    "Quality",
    "Report",
    "StreamReport",
    "Totals",
    "build",
    "to_csv",
    "to_html",
    "to_json",
    "to_text",
]
