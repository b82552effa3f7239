"""Forecasts of rain: of radar composites, written as forecasters read them, and measured as they measure.

Shapes: T input frames, T' lead times, H x W cells; rates in mm/h, NaN where a cell is missing.
"""

from .evaluation import evaluate_rain
from .forecasts import Forecast, model_forecast, optical_flow, persistence
from .prediction import RainPrediction, predict_rain
from .scores import SCALES, THRESHOLDS, RainScores

__all__ = [
    "SCALES",
    "THRESHOLDS",
    "Forecast",
    "RainPrediction",
    "RainScores",
    "evaluate_rain",
    "model_forecast",
    "optical_flow",
    "persistence",
    "predict_rain",
]
