create table ledger (  -- append-only: a line for every time that money was taken
    id bigint generated always as identity primary key,
    order_id uuid not null,
    amount_cents bigint not null,
    booked_at timestamptz not null default now()
);
