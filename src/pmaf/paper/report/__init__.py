"""The report: tables, charts and sentences made of what the experiments found."""
