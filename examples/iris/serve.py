"""Serves scikit-learn's Iris classifier as `sklearn-iris` with KServe's own Python server.

Answers KServe's V1 and V2 protocols over HTTP on the port given in PORT (8080 by default).
The first start trains the model on the data that comes with scikit-learn and saves it; later starts load it.
"""

import gc
import os
import sys
import warnings
from pathlib import Path

# Importing makes many objects and frees few: collecting meanwhile is wasted work (a tenth of the start).
gc.disable()

import joblib
import sklearn
from kserve import Model, ModelServer
from kserve.protocol.infer_type import InferRequest
from kserve.logging import KSERVE_LOG_CONFIG, configure_logging
from kserve.utils.utils import get_predict_input, get_predict_response

NAME = "sklearn-iris"


def model_file() -> Path:
    """Where the trained model is kept. A model is only good for the version of scikit-learn that saved it."""
    cache = os.environ.get("IRIS_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rouse-examples" / f"sklearn-iris-{sklearn.__version__}.joblib"


def train(file: Path):
    """Trains the classifier and saves it. Several replicas may do so at once: the last one wins, all are whole."""
    from sklearn import datasets, svm  # not needed once there is a file

    data = datasets.load_iris()
    classifier = svm.SVC(gamma="scale").fit(data.data, data.target)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    joblib.dump(classifier, part)
    part.replace(file)
    return classifier


class Iris(Model):
    """The classifier behind KServe's protocols."""

    def load(self) -> bool:
        file = model_file()
        self.classifier = joblib.load(file) if file.exists() else train(file)
        self.ready = True
        return self.ready

    def predict(self, payload: dict | InferRequest, headers: dict | None = None):
        result = self.classifier.predict(get_predict_input(payload))
        return get_predict_response(payload, result, self.name)


def quiet():
    """Leaves out the three lines that KServe and uvicorn write for each request: they take longer than the answer."""
    config = KSERVE_LOG_CONFIG
    for name in ("kserve.trace", "uvicorn.access", "uvicorn.error", "kserve"):
        config["loggers"].setdefault(name, {})["level"] = "WARNING"
    configure_logging(config)
    # FastAPI reminds KServe on each request that a response class is going to be replaced.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")


if __name__ == "__main__":
    quiet()
    iris = Iris(NAME)
    iris.load()
    gc.enable()
    gc.freeze()  # what is loaded stays: leave it out of every later collection
    server = ModelServer(
        http_port=int(os.environ.get("PORT", "8080")),
        enable_grpc=False,  # a second port, fixed, that replicas on one machine would fight for
        workers=1,
        enable_latency_logging=False,
    )
    sys.exit(server.start([iris]))
