"""OpenAI's images and models API."""

from clipskip.doors.http.openai.routes import openai_routes

__all__ = ["openai_routes"]
