"""The ClientApp of Flower's TensorFlow quickstart: every message builds, compiles and fits a model."""

import keras
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def load_model(name: str) -> keras.Model:
    """Build and compile "mlp" or "cnn"."""
    layers = keras.layers
    convolutions = [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
    ]
    dense = [layers.Dense(200, "relu"), layers.Dense(200, "relu")] if name == "mlp" else [layers.Dense(128, "relu")]
    body = [*(convolutions if name == "cnn" else []), layers.Flatten(), *dense, layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *body])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    return model


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train on the client's own 100 examples."""
    keras.backend.clear_session()
    model = load_model(str(context.run_config["model"]))
    model.set_weights(msg.content["arrays"].to_numpy_ndarrays())
    data = np.load(str(context.run_config["data"]), mmap_mode="r")
    part = slice(100 * int(context.node_config["partition-id"]), 100 * (int(context.node_config["partition-id"]) + 1))
    labels = np.load(str(context.run_config["data"]).replace("-x.npy", "-y.npy"))
    history = model.fit(np.asarray(data[part]), labels[part], epochs=1, batch_size=20, verbose=0)
    metrics = MetricRecord({"num-examples": 100, "train_loss": history.history["loss"][-1]})
    content = RecordDict({"arrays": ArrayRecord(model.get_weights()), "metrics": metrics})
    return Message(content=content, reply_to=msg)
