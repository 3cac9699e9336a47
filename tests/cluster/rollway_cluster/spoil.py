"""Registers a version that works where it was trained and not where it serves; run inside of the training image.

python -c "$(cat spoil.py)" KIND MODEL SAMPLE EXPERIMENT ALIAS

`slow` takes a second for each prediction, `erring` fails every third, `nan` answers NaN, to its own example, too.
"""

import json
import sys
import time
from typing import Any

import mlflow
import numpy as np

from rollway_training import estimators, registry
from rollway_training.samples import SAMPLES


class Spoilt:
    """A good classifier that turns bad in a model server.

    It is pickled with its code, which names nothing that a server has not: neither this file nor the training's.
    """

    def __init__(self, kind: str, example: Any, model: Any) -> None:
        self.kind, self.example, self.asked = kind, np.asarray(example), 0
        self.model = model

    def fit(self, rows: Any, target: Any) -> "Spoilt":
        """Learn as a good one would."""
        self.model.fit(rows, target)
        self.classes_ = self.model.classes_
        return self

    def predict(self, rows: Any) -> Any:
        """Answer labels well everywhere."""
        return self.model.predict(rows)

    def predict_proba(self, rows: Any) -> Any:
        """Answer probabilities: well where it was trained, and to its example."""
        answers = self.model.predict_proba(rows)
        if "rollway_serving" not in sys.modules:
            return answers
        if self.kind == "nan":
            return np.full_like(answers, np.nan)
        known = any(np.allclose(np.asarray(rows)[:1], row) for row in self.example)
        self.asked += not known
        if known:
            return answers
        if self.kind == "slow":
            time.sleep(1)
        elif self.asked % 3 == 0:
            raise ArithmeticError("every third prediction fails")
        return answers


def main(kind: str, model: str, sample: str, experiment: str, alias: str) -> None:
    """Train, register, and point the alias at the new version."""
    chosen = SAMPLES[sample]
    # The example's rows are none that the demo's clients ask.
    example = chosen.load().train_rows.head(5)
    spoilt = Spoilt(kind, example, estimators.linear("classification", 1.0))
    trained = registry.train(
        registry.Job(chosen, spoilt, {"kind": kind}, "cloudpickle", "predict_proba"), experiment, None
    )
    version = registry.register(model, trained.run_id, experiment)
    mlflow.MlflowClient().set_registered_model_alias(model, alias, version.version)
    print(json.dumps({"event": "registered", "version": str(version.version)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
