create table customer (
    id text primary key,
    name text not null
);
create table orders (
    id uuid primary key,
    customer text not null references customer,
    sku text not null,
    quantity integer not null check (quantity > 0),
    amount_cents bigint not null,
    status text not null default 'placed' check (status in ('placed', 'charged', 'declined')),
    idempotency_key text not null unique,
    placed_at timestamptz not null default now()
);
