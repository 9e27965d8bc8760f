"""The catalog's rules, one sentence each."""

from dataclasses import replace
from typing import Any

import pytest

from commands.catalog import DECIDER
from commands.rejections import UnknownProduct
from schemas.catalog import (
    PriceChanged,
    ProductChanged,
    ProductPublished,
    ProductRetired,
    PublishedProduct,
    PublishProduct,
    RetiredProduct,
    RetireProduct,
    product_stream,
)
from tests.specification import Given

PUBLISH = PublishProduct("85123A", "Lamp", "Hangs", ("home", "light"), "lamp.png", 255, "GBP", stocked=True)
PUBLISHED = ProductPublished(**vars(PUBLISH))
RETIRE, RETIRED = RetireProduct("85123A"), ProductRetired("85123A")


def given(*events: Any) -> Given:
    return Given(DECIDER, *events)


def test_a_new_product_is_published():
    outcome = given().when(PUBLISH).then(PUBLISHED)
    assert outcome.given.records == {product_stream("85123A"): PublishedProduct(**vars(PUBLISH))}


def test_publishing_the_same_again_changes_nothing():
    given(PUBLISHED).when(PUBLISH).then_nothing()


@pytest.mark.parametrize(
    "news",
    [
        {"name": "Lantern"},
        {"description": "Stands"},
        {"categories": ("home",)},
        {"image": "other.png"},
        {"stocked": False},
    ],
)
def test_whatever_else_than_the_price_is_new_is_a_change_of_the_product(news):
    here = given(PUBLISHED)
    wanted = replace(PUBLISH, **news)
    here.when(wanted).then(
        ProductChanged(
            "85123A", wanted.name, wanted.description, wanted.categories, wanted.image, wanted.stocked
        )
    )
    assert here.get(wanted.stream) == PublishedProduct(**vars(wanted))


@pytest.mark.parametrize("news", [{"price": 295}, {"currency": "EUR"}])
def test_a_new_price_is_an_event_of_its_own(news):
    here = given(PUBLISHED)
    wanted = replace(PUBLISH, **news)
    here.when(wanted).then(PriceChanged("85123A", wanted.price, wanted.currency, 255))
    assert here.get(wanted.stream) == PublishedProduct(**vars(wanted))


def test_a_new_name_and_a_new_price_are_two_events():
    given(PUBLISHED).when(replace(PUBLISH, name="Lantern", price=1)).then(
        ProductChanged("85123A", "Lantern", "Hangs", ("home", "light"), "lamp.png", stocked=True),
        PriceChanged("85123A", 1, "GBP", 255),
    )


def test_a_product_is_retired_once():
    here = given(PUBLISHED)
    here.when(RETIRE).then(RETIRED)
    here.when(RETIRE).then_nothing()
    assert here.get(RETIRE.stream) == RetiredProduct(**vars(PUBLISH))


def test_an_unknown_product_is_not_retired():
    given().when(RETIRE).then_rejected(UnknownProduct)


def test_a_retired_product_may_be_published_again():
    here = given(PUBLISHED, RETIRED)
    here.when(PUBLISH).then(PUBLISHED)
    assert isinstance(here.get(PUBLISH.stream), PublishedProduct)
