"""Tables, statistics, findings, figures, scorecard: what turns numbers into words or pictures. No torch."""
