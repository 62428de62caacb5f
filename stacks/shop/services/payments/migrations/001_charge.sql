create table charge (
    id bigint generated always as identity primary key,
    order_id uuid not null unique,
    customer text not null,
    amount_cents bigint not null,
    status text not null check (status in ('charged', 'declined')),
    charged_at timestamptz not null default now()
);
