"""The former names of `engine.reports.files`, until the pages have moved."""

from engine.reports.files import csv_text, html_page
from engine.reports.files import recipe_fingerprint as fingerprint
from engine.reports.files import report_origin as provenance

__all__ = ["csv_text", "fingerprint", "html_page", "provenance"]
