"""A notebook as a script: the log in Python, in Arrow and in SQL. With a Daybook up: python docs/notebook.py."""

# %% Where Daybook is: what ./daybook up left behind, or what the environment says.
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ops.cli import here
from schemas.order import OrderPlaced
from schemas.topics import Topics
from streams.columns import record_batches
from streams.replay import Query, replay

found = here()
topics = Topics(found.topic_prefix)

# %% Events, one by one, decoded and in today's shape. No consumer group is touched; memory stays bounded.
orders = Query((topics.events("order"),))
reading = replay(found.kafka, topics, orders)
with closing(reading):
    types = Counter(type(record.message.body).__name__ for record in reading.events())
print(f"{types.total()} events of orders:", ", ".join(f"{n} {name}" for name, n in types.most_common(3)))

# %% The same log in columns: a record batch of Arrow for each type of event, some thousand rows each.
placed = Query((topics.events("order"),), types=frozenset({"OrderPlaced"}))
with closing(replay(found.kafka, topics, placed)) as reading:
    batches = [batch for message, batch in record_batches(reading) if message is OrderPlaced]
table = pa.Table.from_batches(batches)
print(f"{table.num_rows} orders were placed, for {sum(table['amount'].to_pylist())} in minor units")

# %% A table is a table: DuckDB asks it as it stands, Parquet keeps it.
by_owner = (
    "select owner, count(*) as orders, sum(amount) as amount from placed group by owner order by amount desc"
)
with duckdb.connect() as connection:
    connection.register("placed", table)
    for owner, count, amount in connection.execute(by_owner).fetchmany(3):
        print(f"{owner}: {count} orders, {amount}")
with TemporaryDirectory() as directory:
    pq.write_table(table, Path(directory) / "placed.parquet")
