"""Writes the shop's data sets: `python3 generate.py small|large` into $OUT.

Deterministic: everything follows from a row's number, so the checksums in seed.yaml hold wherever it runs.
"""

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

SIZES = ("Small", "Large", "Flat", "Tall", "Round", "Folding", "Heavy", "Light")
COLOURS = ("blue", "red", "green", "white", "black", "yellow", "grey", "brown", "orange")
THINGS = ("lamp", "chair", "table", "shelf", "clock", "mirror", "basket", "rug", "kettle", "bowl", "cup")
FIRST_DAY = date(2025, 1, 1)


@dataclass(frozen=True)
class Size:
    """How many there are of each."""

    products: int
    days: int  # of price history, for each product
    customers: int
    archived: int  # orders in the archive


SHOPS = {"small": Size(2_000, 4, 400, 3_000), "large": Size(200_000, 8, 100_000, 500_000)}


def mixed(number: int, salt: int) -> int:
    """A number that looks random: Knuth's multiplicative hash with a salt."""
    return ((number * 2_654_435_761 + salt * 40_503) ^ (number >> 7)) % 4_294_967_296 >> 8


def price(product: int, day: int = 0) -> int:
    """In cents, from 1.00 to 90.99; moves by a few cents a day."""
    return 100 + mixed(product, 1) % 9_000 + day * (mixed(product, 2) % 5)


def product(number: int) -> str:
    """A line of products.csv: sku, name, price_cents."""
    name = f"{SIZES[mixed(number, 3) % 8]} {COLOURS[mixed(number, 4) % 9]} {THINGS[mixed(number, 5) % 11]}"
    return f"p{number:06d},{name},{price(number)}\n"


def archived(number: int, shop: Size) -> str:
    """An order of an earlier year, in the form of the topic `orders.placed`."""
    item, quantity = mixed(number, 6) % shop.products + 1, mixed(number, 7) % 3 + 1
    return (
        f'{{"order_id":"00000000-0000-4000-8000-{number:012d}","customer":"c{mixed(number, 8) % shop.customers + 1}",'
        f'"sku":"p{item:06d}","quantity":{quantity},"amount_cents":{quantity * price(item)}}}\n'
    )


def files(shop: Size) -> dict[str, tuple[str, Iterable[str]]]:
    """File name → header and lines.  Customers are c1, c2 and so on, products p000001, p000002."""
    days = [(FIRST_DAY + timedelta(day * 30)).isoformat() for day in range(shop.days)]
    products = range(1, shop.products + 1)
    return {
        "products.csv": ("sku,name,price_cents\n", map(product, products)),
        "prices.csv": ("sku,day,price_cents\n", (
            f"p{number:06d},{text},{price(number, day)}\n" for number in products for day, text in enumerate(days)
        )),
        "stock.csv": ("sku,on_hand\n", (f"p{number:06d},{1_000 + mixed(number, 9) % 9_000}\n" for number in products)),
        "customers.csv": ("id,name\n", (f"c{number},Customer {number}\n" for number in range(1, shop.customers + 1))),
        "archive.jsonl": ("", (archived(number, shop) for number in range(1, shop.archived + 1))),
    }


def main(write: Callable[[str], object] = sys.stderr.write) -> None:
    """Writes all files of one size."""
    out = Path(os.environ["OUT"])
    for name, (header, lines) in files(SHOPS[sys.argv[1]]).items():
        with (out / name).open("w", encoding="utf-8", newline="\n", buffering=1 << 20) as file:
            file.write(header)
            file.writelines(lines)
        write(f"{name}\n")


main()
