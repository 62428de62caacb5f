create table stock (
    sku text primary key,
    on_hand integer not null check (on_hand >= 0),
    reserved integer not null default 0 check (reserved between 0 and on_hand)
);
create table reservation (
    order_id uuid primary key,
    sku text not null,
    quantity integer not null check (quantity > 0),
    status text not null default 'reserved' check (status in ('reserved', 'back order'))
);
