//! What tests share: one private Postgres for the whole test binary, a database for each test.
