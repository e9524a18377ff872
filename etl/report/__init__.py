"""What people and machines read: summary, JSON, progress, events, logs.

`values` is the report of a run, `events` the JSON lines, `progress` what is shown
while it runs, `summary` what is said at its end, `logs` the one logging set-up.
"""
