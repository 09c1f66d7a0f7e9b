"""Our own API: sweeps, prompts, settings, files and advice as JSON."""

from clipskip.doors.http.ours.advising import advise_routes
from clipskip.doors.http.ours.bodies import MOST_CHARACTERS, Body, Layer, Name, SessionBody, Text, skip_of
from clipskip.doors.http.ours.events import data_url
from clipskip.doors.http.ours.fetching import fetch_routes
from clipskip.doors.http.ours.marking import marking_routes
from clipskip.doors.http.ours.reading import reading_routes
from clipskip.doors.http.ours.scoring import scoring_routes
from clipskip.doors.http.ours.sweeps import sweep_routes
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
