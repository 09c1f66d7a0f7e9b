"""Our own API: sweeps, prompts, settings, files and advice as JSON."""

from clipskip.doors.http.ours.advice_api import advise_routes
from clipskip.doors.http.ours.bodies import MOST_CHARACTERS, Body, Layer, Name, SessionBody, Text, skip_of
from clipskip.doors.http.ours.events import data_url
from clipskip.doors.http.ours.fetch_api import fetch_routes
from clipskip.doors.http.ours.marks_api import marking_routes
from clipskip.doors.http.ours.reading_api import reading_routes
from clipskip.doors.http.ours.scores_api import scoring_routes
from clipskip.doors.http.ours.sweeps_api import sweep_routes
from clipskip.doors.http.ours.views import ErrorView, RefusalView

__all__ = [
    "MOST_CHARACTERS",
    "Body",
    "ErrorView",
    "Layer",
    "Name",
    "RefusalView",
    "SessionBody",
    "Text",
    "advise_routes",
    "data_url",
    "fetch_routes",
    "marking_routes",
    "reading_routes",
    "scoring_routes",
    "skip_of",
    "sweep_routes",
]
