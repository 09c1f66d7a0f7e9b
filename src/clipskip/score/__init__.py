"""A sweep's folder and an open model in; a number for each cell and measure, and what they come to, out."""

from clipskip.score.scoring import Score, Scoring, available, score_sweep

__all__ = ["Score", "Scoring", "available", "score_sweep"]
