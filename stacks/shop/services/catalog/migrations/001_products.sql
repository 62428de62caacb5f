create table product (
    sku text primary key,
    name text not null,
    price_cents integer not null check (price_cents >= 0)
);
create table price_history (
    sku text not null,
    day date not null,
    price_cents integer not null,
    primary key (sku, day)
);
