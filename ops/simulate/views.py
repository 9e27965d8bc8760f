"""C11: every row of every view, compared with a fold of the whole log of its own."""

from typing import Any

from ops.simulate.site import Site
from ops.simulate.stores import Shelf, rows_of, stored
from ops.simulate.wire import DECODER
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.store import Folded
from projections.view import Fact, Recorded, View, fold, offered


def view_errors(site: Site) -> list[str]:
    errors: list[str] = []
    for name, views in (("redis", REDIS_VIEWS), ("cassandra", CASSANDRA_VIEWS)):
        for view in views:
            errors += _errors_of(view, site, site.shelves[name])
    return errors


def _errors_of(view: View[Any], site: Site, shelf: Shelf) -> list[str]:
    should = _fold_of_log(view, site)
    held = {
        key[1]: row.content
        for key, row in shelf.rows.items()
        if key[0] == view.title and row.content is not None
    }
    held |= {
        f"document {key[1]}": document
        for key, (_, document) in shelf.documents.items()
        if key[0] == view.title
    }
    names = sorted(should.keys() | held.keys())
    wrong = [name for name in names if should.get(name) != held.get(name)]
    return [
        f"{view.name}: {name} is {held.get(name)!r:.80}, and should be {should.get(name)!r:.80}"
        for name in wrong
    ]


def _fold_of_log(view: View[Any], site: Site) -> dict[str, Any]:
    documents: dict[str, Any] = {}
    steps: list[tuple[Any, Fact]] = []
    poison = set(site.poison)
    for topic in view.topics(site.topics):
        records = [
            Recorded(topic, number, offset, entry.key, DECODER.decode(entry.value or b""))
            for number, offset, entry in site.broker.committed_entries(topic)
            if ((topic, number), offset) not in poison
        ]
        facts, _ = offered(view, records)
        fold(view, documents, facts, lambda before, fact: steps.append((before, fact)))
    folded = Folded(dict.fromkeys(documents), documents, steps)
    rows = {name: held.content for name, held in rows_of(view, folded) if held.content is not None}
    return rows | {f"document {stream}": stored(view, document) for stream, document in documents.items()}
