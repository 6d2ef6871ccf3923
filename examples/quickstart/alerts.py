"""Prints every alert of every model, for ever: any Kafka client can do it."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from homeostat.endpoints import kafka_address
from homeostat.events.v1.alert_pb2 import Alert, AlertState
from homeostat.topics import ALERTS


async def main() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_address(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(ALERTS.name, 0)])
        print(f"waiting for alerts on {ALERTS.name}", flush=True)
        async for record in consumer:
            alert = Alert.FromString(record.value)
            state = AlertState.Name(alert.state).removeprefix("ALERT_STATE_").lower()
            print(
                f"{alert.model_name} version {alert.version}: {state}: {alert.summary}", flush=True
            )
    finally:
        await consumer.stop()


asyncio.run(main())
