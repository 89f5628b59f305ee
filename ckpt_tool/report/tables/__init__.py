"""Reports as plain tables, for spreadsheets, pull requests and papers: `--format`."""
