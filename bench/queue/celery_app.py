"""The unit as a Celery task: acknowledged late, no result kept, everything else as Celery has it."""

from celery import Celery

from bench.queue import unit

app = Celery("bench", broker=unit.redis_url())
app.conf.update(
    broker_connection_retry_on_startup=True, task_acks_late=True, task_ignore_result=True
)


@app.task(name="fetch_symbol")
def fetch_symbol(symbol: str) -> None:
    """Ask for one symbol."""
    unit.fetch(symbol)
