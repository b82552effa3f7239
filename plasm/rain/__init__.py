"""Forecasts of rain: of radar composites, written as forecasters read them, and measured as they measure.

Shapes: T input frames, T' lead times, H x W cells; rates in mm/h, NaN where a cell is missing.
"""

from .evaluation import RainEvaluation, evaluate_rain, run
from .forecasts import Forecast, model_forecast, optical_flow, persistence
from .prediction import RainPrediction, predict_rain
from .scores import SCALES, THRESHOLDS, RainScores
from .tables import scores_table

__all__ = [
    "SCALES",
    "THRESHOLDS",
    "Forecast",
    "RainEvaluation",
    "RainPrediction",
    "RainScores",
    "evaluate_rain",
    "model_forecast",
    "optical_flow",
    "persistence",
    "predict_rain",
    "run",
    "scores_table",
]
