"""The laws, asked of the log at rest by checkers that share no code with the worker."""

from ops.audit.law_book import LawBook
from ops.simulate.callers import Callers
from ops.simulate.site import Site
from schemas.language import AGGREGATES


def verdicts(site: Site, callers: Callers) -> list[str]:
    book = LawBook()
    for kind in ("events", "decisions"):
        for aggregate in AGGREGATES:
            topic = f"{site.topics.prefix}.{kind}.{aggregate}"
            for number, offset, entry in site.broker.committed_entries(topic):
                if ((topic, number), offset) in site.poison:
                    continue
                book.feed(topic, number, entry.value or b"")
    found = book.finish(site.clock.now, site.provider.ledger)
    return [f"law {law}: {said}" for law, said in found.items() if said != "holds"] + site.failures + site.damaged
