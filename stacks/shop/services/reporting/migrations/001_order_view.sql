create table order_view (
    order_id uuid primary key,
    customer text not null,
    sku text not null,
    quantity integer not null,
    amount_cents bigint not null,
    status text not null default 'placed',
    seen timestamptz not null default now()
);
create index on order_view (customer, seen desc);
