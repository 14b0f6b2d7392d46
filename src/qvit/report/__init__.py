"""Reports on runs and studies: arms, claims, tables, charts, pages. It reads folders and starts no runs."""
