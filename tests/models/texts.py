"""Segments of made-up traffic, in which users ask, tools return fields and assistants report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from models.embedder import PACKAGED
from models.wordpiece import TokenBags, WordPiece

TOKENS = (PACKAGED / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
_CITIES = "Rome Paris Oslo Madrid Vienna Lisbon Prague Dublin".split()
_DISHES = "pizza soup salad curry noodles fish rice cake".split()
_USER = (
    "Please book me a table in {city} for tomorrow evening and send the bill to my office",
    "Can you find a cheap flight to {city} and tell me when it leaves?",
    "I want you to cancel my order of {dish} and give me the money back",
    "You need to show me where I can eat {dish} in {city}, and do not forget the prices",
)
_TOOL = (
    "name: Hotel {city}, rating: 4.{digit}, price: {digit}9 EUR, address: {digit} Main Street, {city}",
    "id: 10{digit}, dish: {dish}, amount: {digit}.50, currency: EUR, status: delivered",
    "The restaurant serves {dish} and is {digit} km from the centre of {city}, with views of the river",
    "flight: AZ{digit}2, from: {city}, departure: 0{digit}:30, seats: {digit}",
)
_ASSISTANT = ("I have found {digit} hotels in {city} for you.", "Your order of {dish} has been cancelled.")


@cache
def pieces() -> WordPiece:
    """The packaged tokeniser."""
    return WordPiece(TOKENS)


def traffic(tenants: int, each: int, seed: int = 0) -> tuple[list[str], list[int], list[int]]:
    """Texts, roles (user 1, assistant 2, tool 3) and tenants of `each` segments a tenant and role."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    roles: list[int] = []
    owners: list[int] = []
    for tenant in range(tenants):
        for role, templates in ((1, _USER), (2, _ASSISTANT), (3, _TOOL)):
            for _ in range(each):
                words = {
                    "city": rng.choice(_CITIES),
                    "dish": rng.choice(_DISHES),
                    "digit": str(rng.integers(1, 10)),
                }
                texts.append(str(rng.choice(templates)).format(**words))
                roles.append(role)
                owners.append(tenant)
    return texts, roles, owners


def bags_of(texts: Sequence[str]) -> TokenBags:
    """Tokens of `texts`."""
    return pieces().encode(texts)
