"""A feed that breaks, made up from the first number to the last.

`python greenhouse.py` makes a model that says which plants will wilt, and its history. `python
greenhouse.py play` plays two days: on the second one the thermometers' feed sends degrees Celsius
instead of Fahrenheit. It wants a server that is told what time it is: `homeostat up --set
INFERENCE_WATERMARK_MODE=explicit`.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from homeostat.channels import open_channel
from homeostat.client import Client, infer_request
from homeostat.endpoints import address
from homeostat.events.v1.alert_pb2 import Alert
from homeostat.inference.v1.truth_pb2 import Outcome
from homeostat.monitor.v1.monitor_pb2 import ListAlertsRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
HISTORY_ROWS, HOURS, ROWS_AN_HOUR = 6_000, 48, 60
BREAKS_AFTER_HOURS = 24
MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
rng = np.random.default_rng(7)


def rows(count: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Inputs, the context that the model does not use, and what came true."""
    temperature = rng.normal(75, 8, count)
    humidity = 60 - 1.5 * (temperature - 75) + rng.normal(0, 6, count)
    light = rng.uniform(0.2, 1, count)
    house = rng.choice(["north", "south", "annex"], count)
    odds = 0.25 * (temperature - 78) + 3 * (light - 0.7) + 2 * (house == "annex")
    wilts = rng.random(count) < 1 / (1 + np.exp(-odds))
    inputs = {"temperature": temperature, "humidity": humidity, "light": light}
    return {name: each.astype(np.float32) for name, each in inputs.items()}, house, wilts


def make() -> None:
    inputs, house, wilts = rows(HISTORY_ROWS)
    table = pa.table(inputs)
    frame, half = table.to_pandas(), HISTORY_ROWS // 2
    scale = ColumnTransformer([("scale", StandardScaler(), list(inputs))])
    model = make_pipeline(scale, LogisticRegression()).fit(frame[:half], wilts[:half])
    kinds = [(name, FloatTensorType([None, 1])) for name in inputs]
    onnx = to_onnx(model, initial_types=kinds, options={"zipmap": False}, target_opset=18)
    Path("greenhouse.onnx").write_bytes(onnx.SerializeToString())

    # What the model was not trained on tells which level of error is normal.
    wrong = (model.predict(frame) != wilts).astype(float)
    losses = [None] * half + wrong[half:].tolist()
    times = [BEGIN - timedelta(minutes=HISTORY_ROWS - each) for each in range(HISTORY_ROWS)]
    known = [each + timedelta(hours=2) for each in times]
    stamp = pa.timestamp("us", "UTC")
    for name, values in (
        ("house", pa.array(house)),
        ("wilts", pa.array(wilts)),
        ("measured", pa.array(times, stamp)),
        ("known", pa.array(known, stamp)),
        ("loss", pa.array(losses, pa.float64())),
    ):
        table = table.append_column(name, values)
    pq.write_table(table, "greenhouse.parquet")
    print("wrote greenhouse.onnx and greenhouse.parquet")


async def play() -> None:
    async with Client(address("inference")) as client, open_channel(address("monitor")) as channel:
        for hour in range(HOURS):
            await one_hour(client, hour)
            if hour == BREAKS_AFTER_HOURS:
                print(f"{BEGIN + timedelta(hours=hour)}: the feed sends Celsius")
                alert = await told(MonitorServiceStub(channel))
                print(f"an hour later, an alert: {alert.summary}")
    print(f"played {HOURS} hours")


async def one_hour(client: Client, hour: int) -> None:
    inputs, house, wilts = rows(ROWS_AN_HOUR)
    if hour >= BREAKS_AFTER_HOURS:
        inputs["temperature"] = (inputs["temperature"] - 32) / np.float32(1.8)
    begin = int(BEGIN.timestamp()) * 1_000_000 + hour * HOUR_US
    times = begin + np.arange(ROWS_AN_HOUR) * MINUTE_US
    ids = [f"plant-{each}" for each in times.tolist()]
    request = infer_request(
        "greenhouse", inputs, client_ids=ids, event_times_us=times, contexts={"house": house}
    )
    await client.infer(request)
    outcomes = [
        Outcome(client_id=name, label=str(wilted).lower(), known_at_us=at + 2 * HOUR_US)
        for name, wilted, at in zip(ids, wilts.tolist(), times.tolist(), strict=True)
    ]
    await client.record_outcomes("greenhouse", outcomes, source="gardener")
    # All of this hour was told: it can be judged.
    await client.advance_watermark(begin + HOUR_US)


async def told(monitor: MonitorServiceStub) -> Alert:
    """The alert about the temperature, once its rows were looked at."""
    async with asyncio.timeout(150):
        while True:
            answer = await monitor.ListAlerts(ListAlertsRequest(model_name="greenhouse"))
            for each in answer.alerts:
                if each.feature == "temperature" and each.diagnosis.is_complete:
                    return each
            await asyncio.sleep(0.2)


if sys.argv[1:] == ["play"]:
    asyncio.run(play())
else:
    make()
