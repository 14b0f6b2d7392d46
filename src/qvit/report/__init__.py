"""What runs and studies have found: arms, claims, tables, charts, pages. Reads folders, starts nothing."""
