"""What an evaluation writes: tables, figures, and one page that holds both."""
