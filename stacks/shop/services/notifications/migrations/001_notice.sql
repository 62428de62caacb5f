create table notice (
    order_id uuid not null,
    status text not null,
    customer text not null,
    text text not null,
    primary key (order_id, status)
);
