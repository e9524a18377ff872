"""What etl is made of: its packages' known vulnerabilities, their licences, a bill of materials.

`make audit` writes the bill to `dist/` and exits 1 for a hole or a licence that is not allowed.
"""
