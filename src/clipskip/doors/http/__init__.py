"""Requests of web pages and programs in; JSON, pictures and events out. The rooms below do the work."""

from clipskip.doors.http.access import Access
from clipskip.doors.http.app import build_app
from clipskip.doors.http.punctual import Punctual

__all__ = ["Access", "Punctual", "build_app"]
