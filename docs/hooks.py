"""What the site does to pages: links to files outside of docs/ lead to the repository."""

import re


def on_page_markdown(markdown: str, config: dict, **others: object) -> str:
    base = f"{config['repo_url'].rstrip('/')}/blob/main/"
    return re.sub(r"\]\(\.\./([^)]+)\)", lambda found: f"]({base}{found[1]})", markdown)
