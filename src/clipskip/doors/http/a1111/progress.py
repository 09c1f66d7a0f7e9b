"""Progress of pictures for A1111's clients, and how they stop them."""

import threading

from fastapi import APIRouter

from clipskip.doors.http.a1111.answers import Json
from clipskip.doors.http.ours import data_url
from clipskip.sweep import Job, Studio


def add_progress(routes: APIRouter, studio: Studio, ended: threading.Event) -> None:
    """Add the routes; an interruption also sets `ended`, for pictures that are being enlarged."""

    @routes.get("/progress")
    def progress(skip_current_image: bool = False) -> Json:
        """Return how far the worker is, with a rough look at the picture."""
        job = studio.queue.running
        look = None if job is None or skip_current_image else _look(job)
        return {
            "progress": job.share if job else 0.0,
            "eta_relative": (job.eta_s or 0.0) if job else 0.0,
            "state": _state(job),
            "current_image": look,
            "textinfo": None,
        }

    @routes.post("/interrupt")
    def interrupt() -> Json:
        """End the pictures that somebody waits for: those that are done are answered, and those at hand half done.

        Sweeps go on.
        """
        ended.set()
        job = studio.queue.running
        if job is not None and job.halt is not None:
            job.halt.ended.set()
        return {}

    @routes.post("/skip")
    def skip() -> Json:
        """Leave the pictures in progress half done and go on with the next."""
        job = studio.queue.running
        if job is not None and job.halt is not None:
            job.halt.skip()
        return {}


def _state(job: Job | None) -> Json:
    step, steps = max(job.steps.values(), default=(0, 0)) if job else (0, 0)
    return {
        "skipped": False,
        "interrupted": bool(job and job.halt and job.halt.ended.is_set()),
        "stopping_generation": False,
        "job": ("sweep" if job.id else "pictures") if job else "",
        "job_count": job.total if job else 0,
        "job_timestamp": "0",
        "job_no": len(job.done) if job else 0,
        "sampling_step": step,
        "sampling_steps": steps,
    }


def _look(job: Job) -> str | None:
    """Return the newest preview."""
    looks = list(job.previews.values())
    return data_url(looks[-1]).partition(",")[2] if looks else None
