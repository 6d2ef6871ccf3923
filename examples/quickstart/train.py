"""Makes what `homeostat push` wants: a single-file ONNX model, and the rows it was trained on.

The data are scikit-learn's own breast cancer set (CC BY 4.0); times are made up, one row an hour.
`python train.py 0.01` regularises harder, which makes another model of the same kind.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

COLUMNS = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]

frame = load_breast_cancer(as_frame=True).frame
table = frame[COLUMNS].rename(columns=lambda name: name.replace(" ", "_"))
labels = frame["target"].map({0: "malignant", 1: "benign"})

# Preprocessing lives inside the model: a client sends raw columns, each a named input.
scale = ColumnTransformer([("scale", StandardScaler(), list(table.columns))])
strength = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
model = make_pipeline(scale, LogisticRegression(C=strength)).fit(table, labels)
inputs = [(name, FloatTensorType([None, 1])) for name in table.columns]
onnx = to_onnx(model, initial_types=inputs, options={"zipmap": False}, target_opset=18)
Path("tumours.onnx").write_bytes(onnx.SerializeToString())

first = datetime.now(UTC) - timedelta(hours=len(table), days=3)
times = [first + timedelta(hours=row) for row in range(len(table))]
history = pa.Table.from_pandas(table.astype("float32"), preserve_index=False)
history = history.append_column("diagnosis", pa.array(labels))
history = history.append_column("examined", pa.array(times, pa.timestamp("us", "UTC")))
history = history.append_column(
    "diagnosed", pa.array([each + timedelta(days=2) for each in times], pa.timestamp("us", "UTC"))
)
pq.write_table(history, "history.parquet")
print("wrote tumours.onnx and history.parquet")
