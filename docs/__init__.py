"""The documentation: pages in Markdown, and `_generate`, which writes those that follow from the code."""
