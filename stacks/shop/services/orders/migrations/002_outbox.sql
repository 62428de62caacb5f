create table outbox (
    id bigint generated always as identity primary key,
    topic text not null,
    key text not null,
    value text not null,
    headers jsonb not null
);
