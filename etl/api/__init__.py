"""The exporter from Python: run pipelines, read rows, make one's own calls.

`run_pipelines` does what `etl run` does, and returns its report. `connect` opens a connection:
`get` asks for any path of the API with the token and at the pace of all that use these
credentials, `pages` and `batches` iterate over the rows of a table as Arrow.

These are for code that runs in an event loop (asyncio): a notebook, Prefect, a service.
`etl.api.blocking` has the same names for code that does not: a script, an Airflow or Dagster
task. Neither sets up logs (what they log goes to the logger `etl`), nor listens to signals, nor
keeps anything between two calls. What goes wrong is an `etl.errors.EtlError`.

    async with connect(config="pipelines.yaml") as api:
        workspaces = (await api.get("/usertesting/api/v1/workspaces")).json()
        async for batch in api.batches("tasks", test_id):
            ...

`connecting` opens a connection and asks, `listing` reads a test's pages until they prove
complete, `rows` makes Arrow of answers, `running` runs pipelines, `blocking` is the sync front.
"""

from etl.api.connecting import Api, Reply, connect
from etl.api.running import run_pipelines
from etl.config.models import RateLimit
from etl.plan.orders import Asked
from etl.report.values import RunReport
from etl.run.export import Limits
from etl.run.world import Patience

__all__ = [
    "Api",
    "Asked",
    "Limits",
    "Patience",
    "RateLimit",
    "Reply",
    "RunReport",
    "connect",
    "run_pipelines",
]
