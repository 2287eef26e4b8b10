"""HTML pages with charts, each one file that opens without a network: what reports and studies are made of."""

from mtl_rank.pages.markup import Figures, Html, dotted, element, facts, shown, table
from mtl_rank.pages.page import save_page

__all__ = ["Figures", "Html", "dotted", "element", "facts", "save_page", "shown", "table"]
