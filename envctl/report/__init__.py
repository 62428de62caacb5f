"""From a record and its verdict to HTML, JUnit, Markdown and JSON."""
