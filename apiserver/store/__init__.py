"""The one door to PostgreSQL: connections with deadlines, transactions, migrations, named queries, built SQL."""
