"""Recipes: how a model is trained and becomes one ONNX file. Plug-ins of the group below.

Usable as a library, without the service: ``load("lightgbm").train(table, truths, signature)``.
"""

from homeostat_retrainer.recipes.contract import (
    ENTRY_POINT_GROUP,
    CannotTrain,
    Recipe,
    TrainedModel,
    UnknownRecipe,
    load,
    signature_for,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "CannotTrain",
    "Recipe",
    "TrainedModel",
    "UnknownRecipe",
    "load",
    "signature_for",
]
